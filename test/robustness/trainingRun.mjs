/**
 * A small training run in a process of its own, to be killed or starved: `node trainingRun.mjs FOLDER CONFIG_JSON`.
 * Resumes whatever the folder holds. Prints "ready" when the first step is about to begin and "done" at the end; a typed
 * error ends it with exit status 3 and its code and message.
 */
import { Device, hooksNeeded, MonosemError, parseConfig, StoredActivations, Trainer } from "monosem";

const [output, json] = process.argv.slice(2);
const config = parseConfig({ ...JSON.parse(json), output });
try {
  const device = await Device.open("cpu", { threads: 1 });
  const { activations, shuffle } = config.data;
  const source = await StoredActivations.open(activations, device, {
    tensor: hooksNeeded(config),
    shuffle,
    seed: config.training.seed,
  });
  const trainer = await Trainer.create({ ...config, source, device, resume: true });
  process.stdout.write("ready\n");
  for await (const { step } of trainer.run()) process.stdout.write(`${step}\n`);
  await device.close();
} catch (error) {
  if (!(error instanceof MonosemError)) throw error;
  process.stdout.write(`${error.code} ${error.message}\n`, () => process.exit(3));
}
