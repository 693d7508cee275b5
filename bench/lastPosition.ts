/**
 * What it saves to ask a model for the logits of last positions only, as patching, attribution and steering do: runs with
 * and without `lastPositionOnly`, in turn; prints a table for RESULTS.md.
 *
 *     npm run bench:last-position -- MODEL [MODEL...] [--rounds N]
 */
import { cpus } from "node:os";
import { basename } from "node:path";
import { parseArgs } from "node:util";
import { Device, HookedTransformer } from "monosem";

const { values, positionals } = parseArgs({
  options: { rounds: { type: "string", default: "15" } },
  allowPositionals: true,
});
const batch = 16;
const positions = 32;
console.log(`${cpus()[0]?.model}, ${cpus().length} cores, ${values.rounds} rounds, ${new Date().toISOString()}`);
console.log(`${batch} prompts of ${positions} tokens at once, medians of ms; ratio: median of the rounds' ratios\n`);
console.log("| model | all logits | last positions | ratio |");
console.log("|---|---|---|---|");
const median = (numbers: readonly number[]): number =>
  numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)]!;

const device = await Device.open("cpu");
for (const folder of positionals) {
  using model = await HookedTransformer.load(folder, device);
  const prompts = Array.from({ length: batch }, (_, sequence) =>
    Int32Array.from({ length: positions }, (_, i) => (sequence * 7919 + i * 104729) % model.config.vocabularySize),
  );
  const time = async (lastPositionOnly: boolean): Promise<number> => {
    const begun = performance.now();
    using _ = await model.forward(prompts, { lastPositionOnly });
    await device.synchronize();
    return performance.now() - begun;
  };
  await time(false);
  await time(true);
  const rounds: { readonly all: number; readonly last: number }[] = [];
  for (let round = 0; round < Number(values.rounds); round++) {
    const lastFirst = round % 2 === 1;
    const first = await time(lastFirst);
    const second = await time(!lastFirst);
    rounds.push(lastFirst ? { all: second, last: first } : { all: first, last: second });
  }
  const [all, last] = [median(rounds.map((round) => round.all)), median(rounds.map((round) => round.last))];
  const ratio = median(rounds.map((round) => round.all / round.last));
  console.log(`| ${basename(folder)} | ${all.toFixed(1)} | ${last.toFixed(1)} | ${ratio.toFixed(2)} |`);
}
await device.close();
