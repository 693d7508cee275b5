// @ts-check
/**
 * Why does the model go on with "she"? Five methods side by side: activation patching, a probe, LIME, SHAP and, with an
 * SAE, its latents, each with what it costs. `npm run demo` makes such an SAE.
 *
 *   node examples/compare-methods.js [SAE_DIRECTORY] [PAGE.html]
 */
import { writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { compareMethods, comparisonHtml, comparisonText, Device, HookedTransformer, Sae, singleToken } from "monosem";

const [saeDirectory, page] = process.argv.slice(2);
const device = await Device.open("auto");
const model = await HookedTransformer.load(fileURLToPath(new URL("../assets/tiny-gpt2", import.meta.url)), device);

// What the probe learns from: the same sentences about girls and boys.
const texts = ["One day the", "The little", "Then the", "A happy"].flatMap((start) =>
  ["went home", "said no", "saw a dog", "ran away"].flatMap((end) =>
    ["girl", "boy"].map((label) => ({ text: `${start} ${label} ${end}`, label, type: undefined })),
  ),
);

const comparison = await compareMethods({
  model,
  prompt: "The little girl was happy, because",
  corrupted: "The little boy was happy, because",
  measure: {
    kind: "logit-difference",
    token: singleToken(model.tokenizer, " she"),
    against: singleToken(model.tokenizer, " he"),
  },
  labelled: { texts, positive: "girl" },
  ...(saeDirectory === undefined ? {} : { sae: await Sae.load(saeDirectory, device) }),
});
const report = { title: "Why she?", facts: [], comparison };
process.stdout.write(comparisonText(report));
if (page !== undefined) await writeFile(page, comparisonHtml(report));

await device.close();
