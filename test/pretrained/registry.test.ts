import { expect, test } from "vitest";
import { isRepositoryName } from "../../lib/hub/names.js";
import { isSameModel, repositoryOfModel } from "../../lib/models/locateModel.js";
import { filesOfSae, folderToList } from "../../lib/pretrained/publishedFiles.js";
import { publishedReleases, publishedSae, publishedSaeIds, splitPublishedName } from "../../lib/pretrained/registry.js";

test("the registry names the published SAEs of the models that can be loaded", () => {
  const releases = publishedReleases().map(({ release }) => release);
  for (const release of [
    "gpt2-small-res-jb",
    "gpt2-small-hook-z-kk",
    "gpt2-small-mlp-tm",
    "gpt2-small-resid-post-v5-32k",
    "pythia-70m-deduped-res-sm",
    "sae-pythia-160m-32k",
    "saebench_pythia-160m-deduped_width-2pow14_date-0108",
    "gemma-2b-res-jb",
    ...["2b", "9b"].flatMap((size) =>
      ["res", "mlp", "att", "res-canonical"].map((at) => `gemma-scope-${size}-pt-${at}`),
    ),
    "llama-3-8b-it-res-jh",
    "llama_scope_lxr_8x",
    "qwen-scope-3-1.7b-base-w32k-l50",
  ]) {
    expect(releases).toContain(release);
  }
});

test("every entry is complete: a repository, files to be found, a model with a repository, a hook of its layer", () => {
  let saes = 0;
  for (const { release } of publishedReleases()) {
    for (const id of publishedSaeIds(release)) {
      const sae = publishedSae(release, id);
      saes += 1;
      expect(isRepositoryName(sae.repository)).toBe(true);
      expect(repositoryOfModel(sae.model!), sae.model).toBeDefined();
      expect(() => filesOfSae(sae.format, sae.path, [])).toThrow(/is missing/);
      expect(sae.path).not.toMatch(/\.\.|^\//);
      if (sae.format !== "saelens")
        expect(sae.hook, `${release}/${id}`).toMatch(/^(blocks\.\d+\.(?!undefined)|hook_embed)/);
      const layer = /(?:layer_?|blocks\.)(\d+)/.exec(id)?.[1];
      if (layer !== undefined && sae.hook !== undefined) expect(sae.hook).toMatch(new RegExp(`^blocks\\.${layer}\\.`));
    }
  }
  expect(saes).toBeGreaterThan(4000);
});

test("facts that change numbers are those of the publishers", () => {
  expect(publishedSae("gpt2-small-res-jb", "blocks.8.hook_resid_pre")).toMatchObject({
    repository: "jbloom/GPT2-Small-SAEs-Reformatted",
    path: "blocks.8.hook_resid_pre",
    format: "saelens",
    model: "gpt2-small",
    hook: "blocks.8.hook_resid_pre",
    l0: 60,
    metadata: { model_from_pretrained_kwargs: { center_writing_weights: true } },
  });
  expect(publishedSae("gemma-scope-2b-pt-res-canonical", "layer_12/width_16k/canonical")).toMatchObject({
    repository: "google/gemma-scope-2b-pt-res",
    path: "layer_12/width_16k/average_l0_82",
    format: "gemma-scope",
    model: "gemma-2-2b",
    hook: "blocks.12.hook_resid_post",
    contextSize: 1024,
    prependBos: true,
    l0: 82,
  });
  expect(publishedSae("gemma-scope-2b-pt-att", "layer_3/width_16k/average_l0_117")).toMatchObject({
    hook: "blocks.3.attn.hook_z",
  });
  expect(publishedSae("gemma-scope-9b-it-res", "layer_9/width_16k/average_l0_88").model).toBe("gemma-2-9b-it");
  expect(publishedSae("gemma-2b-res-jb", "blocks.12.hook_resid_post").inputScale).toBe(0.21381938399317255);
  expect(publishedSae("gemma-2b-res-jb", "blocks.12.hook_resid_post").explainedVariance).toBeUndefined();
  expect(publishedSae("gpt2-small-hook-z-kk", "blocks.1.hook_z").hook).toBe("blocks.1.attn.hook_z");
});

test("misspelled names are answered with the nearest ones", () => {
  expect(() => publishedSae("gpt2-smal-res-jb", "x")).toThrow(/no release .* did you mean gpt2-small-res-jb,/);
  expect(() => publishedSae("gpt2-small-res-jb", "blocks.8.hook_resid_pst")).toThrow(
    /no SAE "blocks.8.hook_resid_pst"; of its 13, did you mean blocks.8.hook_resid_pre,/,
  );
  expect(() => publishedSae("gpt2-small-res-jb")).toThrow(
    /which of its SAEs is not said; of its 13, there are blocks.0/,
  );
  expect(publishedSae("llama-3-8b-it-res-jh").saeId).toBe("blocks.25.hook_resid_post");
});

test("names are split into release and SAE; what is neither a release nor marked as on the hub is left alone", () => {
  expect(splitPublishedName("gpt2-small-res-jb/blocks.8.hook_resid_pre")).toEqual({
    release: "gpt2-small-res-jb",
    saeId: "blocks.8.hook_resid_pre",
  });
  expect(splitPublishedName("gemma-scope-2b-pt-res/layer_0/width_16k/average_l0_105")?.saeId).toBe(
    "layer_0/width_16k/average_l0_105",
  );
  expect(splitPublishedName("gpt2-small-res-jb")).toEqual({ release: "gpt2-small-res-jb" });
  expect(splitPublishedName("hf:owner/name/a/b")).toEqual({ release: "owner/name", saeId: "a/b" });
  expect(splitPublishedName("runs/first/sae")).toBeUndefined();
  expect(splitPublishedName("hf:../x")).toBeUndefined();
  expect(publishedSae("owner/name", "a/b")).toMatchObject({ repository: "owner/name", path: "a/b", format: "unknown" });
});

test("formats say which files belong to an SAE", () => {
  const tracer = (names: string[]): readonly string[] => filesOfSae("circuit-tracer", "layer_1.safetensors", names);
  expect(tracer(["layer_1.safetensors", "wanb-config.yaml", "config.yaml", "x"])).toEqual([
    "layer_1.safetensors",
    "wanb-config.yaml",
    "config.yaml",
  ]);
  expect(() => tracer(["layer_1.safetensors"])).toThrow(/wandb-config.yaml or wanb-config.yaml is missing/);
  expect(filesOfSae("hook-z", "a_v1.2.pt", ["a_v1.2.pt", "a_v1.2_cfg.json", "b.pt"])).toEqual([
    "a_v1.2.pt",
    "a_v1.2_cfg.json",
  ]);
  expect(filesOfSae("unknown", "a", ["a/cfg.json", "a/w.safetensors", "a/README.md", "a/b/x.json", "c.json"])).toEqual([
    "a/cfg.json",
    "a/w.safetensors",
  ]);
  expect(filesOfSae("unknown", ".", ["cfg.json", "a/cfg.json"])).toEqual(["cfg.json"]);
  const inFolder = ["a/b.pt", "a/b_cfg.json", "a/c.pt", "b.json"];
  expect(folderToList("unknown", "a/b.pt")).toBe("a");
  expect(filesOfSae("unknown", "a/b.pt", inFolder)).toEqual(["a/b.pt", "a/b_cfg.json"]);
  expect(() => filesOfSae("unknown", "a/d.pt", inFolder)).toThrow(/a\/d\.pt is or holds no file of a known kind/);
  expect(folderToList("qwen-scope", "layer5.sae.pt")).toBeUndefined();
  expect(folderToList("saelens", "a/b")).toBe("a/b");
});

test("models have several names", () => {
  expect(repositoryOfModel("gpt2-small")).toBe("openai-community/gpt2");
  expect(repositoryOfModel("pythia-70m-deduped")).toBe("EleutherAI/pythia-70m-deduped");
  expect(repositoryOfModel("gemma-2-2b")).toBe("google/gemma-2-2b");
  expect(repositoryOfModel("someone/something")).toBe("someone/something");
  expect(repositoryOfModel("nothing")).toBeUndefined();
  expect(repositoryOfModel("./models/gpt2")).toBeUndefined();
  expect(isSameModel("gpt2-small", "gpt2")).toBe(true);
  expect(isSameModel("openai-community/gpt2", "gpt2-small")).toBe(true);
  expect(isSameModel("meta-llama/Meta-Llama-3.1-8B", "Llama-3.1-8B")).toBe(true);
  expect(isSameModel("gpt2-medium", "gpt2")).toBe(false);
});
