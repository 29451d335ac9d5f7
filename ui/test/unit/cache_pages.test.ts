import { expect, test } from "vitest";
import { heldLayers, heldPositions } from "../../src/components/cache_frame";
import { headOf, largest, summaryOf } from "../../src/pages/attention/attention_values";
import { metadataLines, metadataPatch } from "../../src/pages/cache/annotations";
import { cosines, norms, spread } from "../../src/pages/cache/rows";
import { gridOf as featureGrid, type Found, largestOf } from "../../src/pages/features/feature_values";
import { hooksOfParts, partName, shownParts } from "../../src/pages/lens/attribution_values";
import { describeCell, gridOf, layerOfRow, type Lens } from "../../src/pages/lens/lens_values";

test("positions that a cache holds", () => {
  const of = (positions: unknown) => heldPositions({ positions: positions as "all", n_tokens: 5 });
  expect(of("all")).toEqual([0, 1, 2, 3, 4]);
  expect(of("last")).toEqual([4]);
  expect(of(-2)).toEqual([3]);
  expect(of([4, 0])).toEqual([0, 4]);
  expect(of({ start: 1, end: 3 })).toEqual([1, 2]);
  expect(of({ start: 3, end: null })).toEqual([3, 4]);
  expect(of("mean")).toEqual([]);
  const hooks = ["blocks.2.hook_resid_post", "blocks.10.hook_resid_post", "blocks.2.hook_mlp_out"].map((hook) => ({ hook }));
  expect(heldLayers({ hooks: hooks as never }, "hook_resid_post")).toEqual([2, 10]);
});

test("norms and cosines of rows", () => {
  const rows = { n: 3, width: 2, data: Float32Array.of(3, 4, 0, 0, -6, -8) };
  expect([...norms(rows)]).toEqual([5, 0, 10]);
  expect([...cosines(rows, 0)]).toEqual([1, Number.NaN, -1]);
  expect([...spread([7, 8], [1, 3], 4)]).toEqual([Number.NaN, 7, Number.NaN, 8]);
});

test("metadata that is edited as lines", () => {
  expect(metadataLines({ a: 1, b: "x", c: { deep: 1 }, d: null })).toBe("a=1\nb=x\nd=null");
  expect(metadataPatch({ a: 1, b: "x", c: { deep: 1 } }, { a: 2, e: true })).toEqual({ b: null, a: 2, e: true });
});

test("summaries of an attention head", () => {
  const values = Float32Array.of(1, 0, 0, 0.5, 0.5, 0, 0.25, 0.25, 0.5, 1, 0, 0, 0, 1, 0, 0, 0, 1);
  const pattern = { nHeads: 2, nQueries: 3, nKeys: 3, values, queries: [0, 1, 2] };
  const found = summaryOf(pattern, 0);
  expect(found.first).toBeCloseTo((1 + 0.5 + 0.25) / 3, 12);
  expect(found.previous).toBeCloseTo((0.5 + 0.25) / 2, 12);
  expect(found.distance).toBeCloseTo((0.5 + 0.25 * 2 + 0.25) / 3, 12);
  expect(found.entropy).toBeCloseTo((Math.log(2) + 0.5 * Math.log(4) + 0.5 * Math.log(2)) / 3, 7);
  expect(summaryOf(pattern, 1)).toMatchObject({ entropy: 0, distance: 0, previous: 0 });
  expect([...headOf(pattern, 1)]).toEqual([...values.subarray(9)]);
  expect(largest(Float32Array.of(0.2, 0.4, 0.4), 2)).toEqual([1, 2]);
});

const distribution = (probability: number, rank: number) => ({
  entropy: 1,
  kl: null,
  top: [{ id: 1, token: " x", probability, logit: 0 }],
  tokens: [{ id: 2, rank, probability: 0.1, log_probability: -2, logit: 0 }],
});
const lens = {
  layers: [0, 5],
  positions: [3, 4],
  position_tokens: [" a", " b"],
  tokens: [{ id: 2, token: " y" }],
  values: [
    [distribution(0.1, 99), distribution(0.2, 9)],
    [distribution(0.3, 0), { entropy: null, kl: null, top: [], tokens: [] }],
  ],
} as unknown as Lens;

test("the grid of the lens has the last layer first, and NaN where there is no number", () => {
  expect([...gridOf(lens, "probability")]).toEqual([0.3, Number.NaN, 0.1, 0.2]);
  expect([...gridOf(lens, "rank")]).toEqual([0, Number.NaN, 2, 1]);
  expect(layerOfRow(lens, 0)).toBe(1);
  expect(describeCell(lens, 1, 0, "probability")).toBe("Layer 0, after ·a (position 3)\n·x 10.0 %\n·y: rank 99, 10.0 %");
  expect(describeCell(lens, 0, 1, "probability")).toContain("not a number");
});

test("parts of a logit", () => {
  const part = (kind: string, value: number | null, layer: number | null = 3, head: number | null = null) =>
    ({ name: "blocks.3.x", kind, layer, head, value }) as never;
  expect([part("mlp", 1), part("head", 1, 3, 4), part("attention", 1)].map(partName)).toEqual([
    "MLP 3",
    "Head 3.4",
    "Attention 3",
  ]);
  const parts = [part("mlp", 1), part("mlp", -3), part("mlp", null), part("mlp", 2)];
  expect(shownParts(parts, "size", 2).map(({ value }) => value)).toEqual([-3, 2]);
  expect(shownParts(parts, "pass", 2)).toHaveLength(4);
});

test("the embeddings that a model's family has are captured for the parts of a logit", () => {
  const of = (...hooks: string[]) => hooksOfParts(hooks.map((hook) => ({ hook })));
  const rest = ["resid_post", "attn_out", "attn.z", "mlp_out"];
  expect(of("hook_embed", "blocks.0.hook_resid_post")).toEqual(["embed", ...rest]);
  expect(of("hook_embed", "hook_pos_embed")).toEqual(["embed", "pos_embed", ...rest]);
  expect(of("hook_embed", "embed_ln.hook_out")).toEqual(["embed", "embed_ln.out", ...rest]);
});

test("the grid of features has the most active first", () => {
  const top = (...pairs: [number, number][]) => pairs.map(([feature, activation]) => ({ feature, activation }));
  const positions = [
    { position: 1, top: top([7, 1], [2, 0.5]) },
    { position: 2, top: top([2, 3]) },
    { position: 3, top: [] },
  ];
  const found = { positions } as unknown as Found;
  expect(featureGrid(found, 10)).toEqual({ features: [2, 7], values: Float64Array.of(0.5, 3, 0, 1, 0, 0) });
  expect(featureGrid(found, 1).features).toEqual([2]);
  // An attention sink decides neither order nor scale, but is shown.
  const sunk = { positions: [{ position: 0, top: top([9, 900], [7, 800]) }, ...positions] } as unknown as Found;
  expect(featureGrid(sunk, 10)).toEqual({ features: [2, 7], values: Float64Array.of(0, 0.5, 3, 0, 800, 1, 0, 0) });
  expect(largestOf(sunk)).toBe(3);
});
