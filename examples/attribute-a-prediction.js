// @ts-check
/**
 * Why does the model go on with "she"? Asked of the tokens of the prompt by SHAP, of its words by LIME, and, with an SAE,
 * of the latents by SHAP. `npm run demo` makes such an SAE.
 *
 *   node examples/attribute-a-prediction.js [SAE_DIRECTORY]
 */
import { fileURLToPath } from "node:url";
import {
  Device,
  exactShapley,
  HookedTransformer,
  latentGame,
  lime,
  permutationShapley,
  Sae,
  singleToken,
  textScores,
  tokenGame,
  WordPlayers,
} from "monosem";

const [saeDirectory] = process.argv.slice(2);
const text = "The little girl was happy, because";

const device = await Device.open("auto");
const model = await HookedTransformer.load(fileURLToPath(new URL("../assets/tiny-gpt2", import.meta.url)), device);
const { tokenizer } = model;
const prompt = [model.config.bosTokenId ?? 0, ...tokenizer.encode(text)];
/** The logit of " she" less that of " he". @satisfies {import("monosem").NextTokenMeasure} */
const measure = {
  kind: /** @type {const} */ ("logit-difference"),
  token: singleToken(tokenizer, " she"),
  against: singleToken(tokenizer, " he"),
};

// 1. SHAP: each token's share. All 2^7 subsets of the tokens are tried, so the shares are exact.
const tokens = tokenGame(model, prompt, measure);
const shares = await exactShapley(tokens.game, tokens.positions.length);
console.log(`score ${shares.full.toFixed(3)}, without any token ${shares.empty.toFixed(3)}`);
tokens.positions.forEach((position, player) => {
  const token = JSON.stringify(tokenizer.tokenText(prompt[position] ?? 0));
  console.log(`  SHAP ${(shares.values[player] ?? 0).toFixed(3).padStart(7)}  ${token}`);
});

// 2. LIME: a linear model of any function of texts, here of the same score.
const words = new WordPlayers(text);
const explanation = await lime(words.game(textScores(model, measure)), words.words.length, {
  samples: 300,
  features: 3,
});
console.log(`a linear model of 3 words explains ${(100 * explanation.rSquared).toFixed(0)}% of the score's variance`);
for (const word of explanation.features) {
  console.log(`  LIME ${(explanation.weights[word] ?? 0).toFixed(3).padStart(7)}  ${words.words[word]}`);
}

// 3. The same question to the latents of an SAE. Switched off, a latent takes its part out of the activations; what the
// SAE does not explain stays.
if (saeDirectory !== undefined) {
  const sae = await Sae.load(saeDirectory, device);
  const players = await latentGame(model, sae, prompt, measure, { strongest: 12 });
  const { values, standardErrors } = await permutationShapley(players.game, players.latents.length, {
    permutations: 8,
  });
  players.latents.forEach((latent, player) => {
    const share = `${(values[player] ?? 0).toFixed(3).padStart(7)} ± ${(standardErrors[player] ?? 0).toFixed(3)}`;
    console.log(`  SHAP ${share}  latent ${latent}`);
  });
}

await device.close();
