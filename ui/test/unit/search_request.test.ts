import { expect, test } from "vitest";
import { NO_CONDITIONS } from "../../src/server/conditions";
import { layerNear, vectorHooks } from "../../src/format/hooks";
import { commandOf, partsOf, pythonCode, requestOf, type SearchPlan } from "../../src/pages/search/request";

const plan: SearchPlan = {
  by: "text",
  what: "it's here",
  metric: "cosine",
  over: "caches",
  position: "usual",
  k: 10,
  hook: "resid_post",
  layer: 20,
  model: "m",
  conditions: { ...NO_CONDITIONS, tags: ["a b"], metadata: ["fold=2", "split=train"] },
};

test("a text: the same search as request, command and Python", () => {
  expect(requestOf(plan)).toEqual({
    query: { text: "it's here", model: "m" },
    hook: "resid_post",
    layer: 20,
    metric: "cosine",
    over: "caches",
    k: 10,
    context: 14,
    filter: { model: "m", tags: ["a b"], metadata: { fold: 2, split: "train" } },
  });
  expect(commandOf(plan)).toBe(
    `residuum search 'it'\\''s here' -l 20 -k 10 -m m --tag 'a b' --metadata fold=2 --metadata split=train`,
  );
  expect(pythonCode(plan, "http://h")).toContain(
    `client.search("it's here", model="m", layer=20, k=10, filter={"model": "m", "tags": ["a b"], "metadata": {"fold": 2, "split": "train"}})`,
  );
});

test("tokens of a cache: the position is that of the query alone, and the cache itself is left out", () => {
  const request = requestOf({ ...plan, by: "cache", what: "id", over: "positions", position: "last", metric: "dot" });
  expect(request).toMatchObject({ query: { cache: "id", position: "last" }, over: "positions", exclude_self: true });
  expect(request).not.toHaveProperty("position");
  expect(commandOf({ ...plan, by: "cache", what: "id", over: "positions", position: "last", metric: "dot" })).toMatch(
    /^residuum search --cache id -l 20 --metric dot --over positions -k 10/,
  );
});

test("a direction has no position, and a hook outside the blocks no layer", () => {
  const request = requestOf({ ...plan, by: "direction", what: "mood", position: "usual", hook: "embed", layer: undefined });
  expect(request.query).toEqual({ direction: "mood" });
  expect(request).not.toHaveProperty("layer");
});

test("a hit in its context", () => {
  expect(partsOf({ start: 0, tokens: ["a", " b", " c"], hit: 1 })).toEqual({
    before: "a",
    hit: " b",
    after: " c",
    isStart: true,
  });
  expect(partsOf({ start: 3, tokens: [" c"], hit: 0 })).toEqual({ before: "", hit: " c", after: "", isStart: false });
});

test("hooks with vectors by short name, attention maps left out", () => {
  const hooks = [
    { hook: "embed", axes: ["pos", "d_model"] },
    { hook: "blocks.3.attn.hook_pattern", axes: ["head", "q_pos", "k_pos"] },
    { hook: "blocks.10.attn.hook_z", axes: ["pos", "head", "d_head"] },
    { hook: "blocks.2.attn.hook_z", axes: ["pos", "head", "d_head"] },
    { hook: "blocks.2.hook_resid_post", axes: ["pos", "d_model"] },
  ];
  expect(vectorHooks(hooks).map(({ short, layers }) => [short, layers.map(({ layer }) => layer)])).toEqual([
    ["resid_post", [2]],
    ["embed", []],
    ["attn.z", [2, 10]],
  ]);
  expect([layerNear([0, 5, 10], 7), layerNear([0, 5, 10], undefined), layerNear([], 3)]).toEqual([5, 10, undefined]);
});
