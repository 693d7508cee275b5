import { existsSync } from "node:fs";
import { symlink } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Device } from "../../lib/engine/device.js";
import { Sae } from "../../lib/sae/sae.js";
import { testDevice } from "../testDevice.js";
import { temporaryFolder } from "./runCli.js";

const stories = fileURLToPath(new URL("../../../shared/data/models/stories260K", import.meta.url));

/** Whether the story-telling llama2.c model is here, which is not part of the project. */
export const storiesAvailable: boolean = existsSync(stories);

/** The model as the command line takes it, with its tokenizer beside it, and an SAE of its width that is not trained. */
export async function storiesModel(): Promise<{ readonly model: string; readonly sae: string }> {
  const folder = await temporaryFolder();
  await symlink(join(stories, "stories260K.bin"), join(folder, "stories260K.bin"));
  await symlink(join(stories, "tok512.bin"), join(folder, "tokenizer.bin"));
  const device = await Device.open(testDevice, { threads: 1 });
  const config = { architecture: "topk" as const, dIn: 64, dSae: 128, k: 8, applyBDecToInput: true };
  const metadata = { modelName: "stories260K", hookName: "blocks.2.hook_resid_post" };
  const sae = join(folder, "sae");
  await Sae.create(config, device, 0, { metadata }).save(sae);
  await device.close();
  return { model: join(folder, "stories260K.bin"), sae };
}
