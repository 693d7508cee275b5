import { expect, test } from "vitest";
import { findHookPoint, getActName, hookPointsOf, widthPerToken } from "../../lib/models/hookPoints.js";
import type { ModelConfig } from "../../lib/models/modelConfig.js";

const config = { nLayers: 12, dModel: 768, nHeads: 12, nKeyValueHeads: 12, dHead: 64, dMlp: 3072 } as ModelConfig;

test("a GPT-2 has TransformerLens' hook points, in order of execution", () => {
  const names = hookPointsOf({ ...config, nLayers: 1 }).map(({ name }) => name);
  expect(names).toEqual([
    "hook_embed",
    "hook_pos_embed",
    "blocks.0.hook_resid_pre",
    "blocks.0.ln1.hook_scale",
    "blocks.0.ln1.hook_normalized",
    "blocks.0.attn.hook_q",
    "blocks.0.attn.hook_k",
    "blocks.0.attn.hook_v",
    "blocks.0.attn.hook_attn_scores",
    "blocks.0.attn.hook_pattern",
    "blocks.0.attn.hook_z",
    "blocks.0.hook_attn_out",
    "blocks.0.hook_resid_mid",
    "blocks.0.ln2.hook_scale",
    "blocks.0.ln2.hook_normalized",
    "blocks.0.mlp.hook_pre",
    "blocks.0.mlp.hook_post",
    "blocks.0.hook_mlp_out",
    "blocks.0.hook_resid_post",
    "ln_final.hook_scale",
    "ln_final.hook_normalized",
  ]);
});

test("a hook point's width counts the numbers per token, and attention patterns have none", () => {
  const points = hookPointsOf(config);
  const widthOf = (name: string): number | undefined => widthPerToken(findHookPoint(points, name), config);
  expect(widthOf("blocks.11.hook_resid_post")).toBe(768);
  expect(widthOf("blocks.0.attn.hook_z")).toBe(768);
  expect(widthOf("blocks.0.mlp.hook_post")).toBe(3072);
  expect(widthOf("ln_final.hook_scale")).toBe(1);
  expect(widthOf("blocks.0.attn.hook_pattern")).toBeUndefined();
});

test("an unknown hook point is refused with the names that come nearest", () => {
  const points = hookPointsOf(config);
  expect(() => findHookPoint(points, "blocks.3.hook_resid_pst")).toThrow(
    expect.objectContaining({ code: "ERR_NOT_FOUND", message: expect.stringContaining("blocks.3.hook_resid_post") }),
  );
  expect(() => findHookPoint(points, "blocks.12.hook_resid_post")).toThrow(/nearest: blocks\.\d+\.hook_resid_post/);
  expect(() => findHookPoint(points, "")).toThrow(/no hook point ""/);
});

test("short names expand as TransformerLens' get_act_name does", () => {
  expect(getActName("resid_pre", 5)).toBe("blocks.5.hook_resid_pre");
  expect(getActName("normalized", 27, "ln2")).toBe("blocks.27.ln2.hook_normalized");
  expect(getActName("k", 6, "a")).toBe("blocks.6.attn.hook_k");
  expect(getActName("k", 6)).toBe("blocks.6.attn.hook_k");
  expect(getActName("pattern", 0)).toBe("blocks.0.attn.hook_pattern");
  expect(getActName("pre", 2)).toBe("blocks.2.mlp.hook_pre");
  expect(getActName("pre_linear", 2)).toBe("blocks.2.mlp.hook_pre_linear");
  expect(getActName("rot_q", 3)).toBe("blocks.3.attn.hook_rot_q");
  expect(getActName("k6")).toBe("blocks.6.attn.hook_k");
  expect(getActName("scale4ln1")).toBe("blocks.4.ln1.hook_scale");
  expect(getActName("mlp_post", 1)).toBe("blocks.1.mlp.hook_post");
  expect(getActName("attn_logits", 1)).toBe("blocks.1.attn.hook_attn_scores");
  expect(getActName("mlp_out", 0)).toBe("blocks.0.hook_mlp_out");
  expect(getActName("embed")).toBe("hook_embed");
  expect(getActName("scale")).toBe("ln_final.hook_scale");
  expect(getActName("blocks.1.hook_resid_post")).toBe("blocks.1.hook_resid_post");
});
