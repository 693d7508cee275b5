// Writes docs/configuration.md, the reference of the configuration file, from the schemas that check it.
// With --check it writes nothing and fails when the page is not what it would write.
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { architectures } from "../dist/sae/architectures.js";
import { configurationKeys } from "../dist/training/config.js";

const page = fileURLToPath(new URL("../docs/configuration.md", import.meta.url));

/** What a schema accepts and what it is when missing, for a person. */
function describe(schema) {
  const json = z.toJSONSchema(schema, { io: "input", unrepresentable: "any" });
  const fallback = "default" in json ? `\`${JSON.stringify(json.default)}\`` : schema.isOptional() ? "" : "needed";
  return { type: typeText(json), fallback, text: json.description };
}

function typeText(json) {
  if (json.anyOf) return json.anyOf.map(typeText).join(" or ");
  if (json.enum) return json.enum.map((value) => `\`${value}\``).join(", ");
  if (json.const !== undefined) return `\`${JSON.stringify(json.const)}\``;
  if (json.type === "array") return `list of ${typeText(json.items)}`;
  if (json.type === "integer" || json.type === "number") {
    const noun = json.type === "integer" ? "integer" : "number";
    if (json.exclusiveMinimum === 0 && json.maximum === 1) return `${noun} in (0, 1]`;
    if (json.exclusiveMinimum === 0) return `${noun} > 0`;
    if (json.minimum === 0) return json.exclusiveMaximum === 1 ? `${noun} in [0, 1)` : `${noun} ≥ 0`;
    if (json.minimum === 1) return `${noun} ≥ 1`;
    return noun;
  }
  return { string: "text", boolean: "true, false" }[json.type] ?? json.type;
}

function table(section, keys) {
  const rows = Object.entries(keys).map(([key, schema]) => {
    const { type, fallback, text } = describe(schema);
    if (text === undefined) throw new Error(`${section}: the key ${key} has no description: give its schema one`);
    return `| \`${key}\` | ${type} | ${fallback} | ${text.replaceAll("|", "\\|")} |`;
  });
  return ["| key | value | default | |", "|---|---|---|---|", ...rows].join("\n");
}

const text = `# The configuration file

What \`monosem train\` reads and \`parseConfig\` checks: one JSON object with the sections \`sae\`, \`data\` and \`training\`. An
unknown key is an error. Paths in it begin in the folder where the command is run, not in that of the file. This page is
made from the schemas that check the file (\`npm run docs:configuration\`).

\`\`\`json
{
  "sae": { "architecture": "topk", "dIn": 768, "dSae": 24576, "k": 32 },
  "data": { "model": "models/gpt2", "hook": "blocks.8.hook_resid_pre", "corpus": ["texts/*.jsonl"] },
  "training": { "tokens": 200000000 },
  "output": "runs/first"
}
\`\`\`

## The run

${table("the run", configurationKeys.run)}

## \`sae\`

One object, or a list of them: several SAEs that are trained side by side on the same activations, so that the language
model runs once for all of them. Besides the keys of every architecture there are those of its own, below. Keys of
*other* architectures may stand in the file, too, and are left out, so that \`--set sae.architecture=relu\` compares
architectures.

${table("sae", { architecture: z.enum(Object.keys(architectures)).describe("What kind of SAE."), ...configurationKeys.sae })}

${Object.values(architectures)
  .map(({ name, options, trainingOptions, decoderUnitNorm, initialDecoderNorm }) => {
    const keys = { ...options, ...trainingOptions };
    const norm = decoderUnitNorm ? "1, kept there" : `${initialDecoderNorm} at the start, free afterwards`;
    const own = Object.keys(keys).length === 0 ? "No keys of its own." : table(name, keys);
    return `### \`"architecture": "${name}"\`\n\nNorm of the decoder rows by default: ${norm}.\n\n${own}`;
  })
  .join("\n\n")}

## \`data\`: stored activations

${table("data", configurationKeys.storedData)}

## \`data\`: a language model

${table("data", configurationKeys.modelData)}

## \`training\`

${table("training", configurationKeys.training)}
`;

if (process.argv.includes("--check")) {
  if (readFileSync(page, "utf8") !== text) {
    process.stderr.write("docs/configuration.md is not up to date: npm run docs:configuration\n");
    process.exit(1);
  }
} else {
  writeFileSync(page, text);
}
