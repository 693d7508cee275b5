// @ts-check
/**
 * Where does the model keep whether the child is a girl or a boy? Activations of one prompt are put into the run of the
 * other, layer by layer and head by head; with an SAE, latent by latent. `npm run demo` makes such an SAE.
 *
 *   node examples/patch-a-prompt.js [SAE_DIRECTORY]
 */
import { fileURLToPath } from "node:url";
import {
  attributionPatching,
  Device,
  HookedTransformer,
  latentPatching,
  patchingSweep,
  patchingText,
  Sae,
  singleToken,
} from "monosem";

const [saeDirectory] = process.argv.slice(2);
const device = await Device.open("auto");
const model = await HookedTransformer.load(fileURLToPath(new URL("../assets/tiny-gpt2", import.meta.url)), device);

/** @satisfies {import("monosem").PatchingOptions} */
const options = {
  model,
  pair: {
    clean: model.promptTokens("The little girl was happy, because")[0] ?? [],
    corrupted: model.promptTokens("The little boy was happy, because")[0] ?? [],
  },
  metric: {
    kind: /** @type {const} */ ("logit-difference"),
    token: singleToken(model.tokenizer, " she"),
    against: singleToken(model.tokenizer, " he"),
  },
};

// 1. What enters each block, and what attention adds: the word's own place at first, later that of the last token.
const layers = await patchingSweep(["resid_pre", "attn_out"], "position", options);
// 2. Which heads carry it from there to here.
const heads = await patchingSweep(["z"], "head", options);
const facts = /** @type {const} */ ([
  ["score", `${layers.clean.toFixed(3)} clean, ${layers.corrupted.toFixed(3)} corrupted`],
  ["cost", `${layers.forwardPasses + heads.forwardPasses} forward passes`],
]);
const maps = [...layers.maps, ...heads.maps];
process.stdout.write(patchingText({ title: "", facts, maps }, { colour: false, width: 100 }));

// 3. Which latents: estimated for all of them from derivatives, then tried on the best.
if (saeDirectory !== undefined) {
  const sae = await Sae.load(saeDirectory, device);
  const { latents, forwardPasses } = await attributionPatching({ ...options, sae });
  const best = latents.slice(0, 5);
  const tried = await latentPatching(
    [...best.map(({ latent }) => ({ latents: [latent] })), { latents: best.map(({ latent }) => latent) }],
    { ...options, sae },
  );
  console.log(`\n${latents.length} latents differ; estimates cost ${forwardPasses} forward passes`);
  best.forEach(({ latent, effect }, i) => {
    console.log(`latent ${latent}: estimated ${effect.toFixed(3)}, patched ${(tried.effects[i] ?? 0).toFixed(3)}`);
  });
  console.log(`these together: ${(tried.effects[best.length] ?? 0).toFixed(3)}`);
}

await device.close();
