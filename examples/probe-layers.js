// @ts-check
/**
 * Where in the model can one read off whether a text is about a girl or a boy, once it goes on about something else? A
 * linear probe at the last token after every layer, tested on texts that it has not seen; and how much better that is
 * than reading off labels that mean nothing. The embedding of the last token does not know yet: there the two texts of a
 * pair look the same, and one whose twin was learnt with the other label is told wrong.
 *
 *   node examples/probe-layers.js
 */
import { fileURLToPath } from "node:url";
import { Device, HookedTransformer, pooledFeatures, probe } from "monosem";

const device = await Device.open("auto");
const model = await HookedTransformer.load(fileURLToPath(new URL("../assets/tiny-gpt2", import.meta.url)), device);

const starts = ["One day the", "The little", "Then the", "A happy", "The old"];
const ends = [
  "went home and",
  "was very happy,",
  "saw a dog and",
  "said no, so",
  "ran away from",
  "had a red ball that",
];
const people = ["girl", "boy"];
const texts = starts.flatMap((start) =>
  ends.flatMap((end) => people.map((person) => ({ text: `${start} ${person} ${end}`, label: person }))),
);
const labels = texts.map(({ label }) => (label === "girl" ? 1 : 0));

console.log("hook point                 accuracy  AUROC  selectivity");
const hooks = ["hook_embed", ...Array.from({ length: model.config.nLayers }, (_, i) => `blocks.${i}.hook_resid_post`)];
for (const hook of hooks) {
  const { features } = await pooledFeatures(
    texts.map(({ text }) => text),
    { model, hook, pooling: "last" },
  );
  const { test, control } = await probe(features, labels, { testFraction: 0.4 });
  console.log(
    `${hook.padEnd(25)} ${(100 * test.accuracy).toFixed(1).padStart(8)}%  ${test.auroc.toFixed(3)}  ${(100 * (control?.selectivity ?? 0)).toFixed(1).padStart(11)}`,
  );
}

await device.close();
