// A process that downloads all files of a repository: node downloadOne.mjs owner/name. Prints the folder.
import { downloadFiles } from "../../dist/hub/download.js";

const { directory } = await downloadFiles(process.argv[2], undefined, (names) => names, {
  onProgress: ({ bytes }) => process.stderr.write(`${bytes}\n`),
});
process.stdout.write(directory);
