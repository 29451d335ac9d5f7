import type { Cache, Run, RunSnapshot } from "residuum";
import { expect, test } from "vitest";
import { fileName } from "../../src/server/download";
import { formOf } from "../../src/pages/home/form";
import { againOf } from "../../src/pages/runs/again";
import { after, type Followed } from "../../src/pages/runs/follow";
import { failedItems, progressOf, speedOf, tookSeconds } from "../../src/pages/runs/progress";
import { withValues } from "../../src/router/location";

const RUN = {
  object: "run",
  id: "r",
  status: "completed",
  model: "m",
  priority: "normal",
  n_items: 4,
  n_done: 4,
  n_failed: 0,
  n_reused: 0,
  caches: [],
  tags: ["a", "b"],
  metadata: { k: 1 },
  imported: false,
  created_at: "2026-11-23T12:00:00Z",
} as unknown as Run;
const run = (values: Partial<Run>): Run => ({ ...RUN, ...values });
const problem = { code: "not_finite", detail: "NaN" } as unknown as NonNullable<Run["error"]>;

test("progress counts what failed as done, and says where a run waits", () => {
  expect(progressOf(run({ status: "running", n_done: 1, n_failed: 1 }))).toEqual({ part: 0.5, words: "1 of 4 inputs, 1 failed" });
  expect(progressOf(run({ status: "queued", n_done: 0, queue_position: 2 })).words).toBe("0 of 4 inputs, 2 runs ahead");
  expect(progressOf(run({ status: "queued", n_done: 0, queue_position: 0 })).words).toContain("next in the queue");
  expect(progressOf(run({ n_items: 0, n_done: 0 })).part).toBe(0);
});

test("speed and time left are left out where they are not known", () => {
  const speed = (tokens_per_second: number, eta_seconds: number | null) =>
    speedOf({ ...RUN, tokens_per_second, eta_seconds } as RunSnapshot);
  expect(speed(123.456, 90)).toBe("123 tokens/s, about 1 min left");
  expect(speed(0, null)).toBe("");
  expect(speed(0, 0.2)).toBe("less than a second left");
  expect(tookSeconds(run({ finished_at: "2026-11-23T12:00:01.5Z" }))).toBe(1.5);
  expect(tookSeconds(RUN)).toBeUndefined();
});

test("events add up to texts, failures and what was missed", () => {
  const start: Followed = { texts: new Map(), failures: new Map(), nMissed: 0 };
  const token = (item: number, text: string) => ({ type: "token", data: { item, text } }) as Parameters<typeof after>[1];
  let state = [token(0, " Pa"), token(1, "x"), token(0, "ris")].reduce(after, start);
  state = after(state, { type: "completion", data: { item: 1, text: "", error: problem } } as Parameters<typeof after>[1]);
  state = after(state, { type: "missed", data: { count: 3 } });
  expect([...state.texts]).toEqual([
    [0, " Paris"],
    [1, "x"],
  ]);
  expect(state.failures.get(1)?.code).toBe("not_finite");
  expect(state.nMissed).toBe(3);
  expect(start.texts.size).toBe(0);
});

test("inputs without a cache have failed, once all caches are listed", () => {
  const failed = run({ status: "failed", n_done: 2, n_failed: 2, error: problem });
  const items = (stored: number[], isComplete: boolean, of = failed) => failedItems(of, new Map(), new Set(stored), isComplete);
  expect(items([0, 2], true)).toEqual([
    { item: 1, failure: problem },
    { item: 3, failure: undefined },
  ]);
  expect(items([0], false)).toEqual([]);
  // A cache was deleted since: nothing can be told.
  expect(items([0], true)).toEqual([]);
  // Of a cancelled run, inputs without a cache were never computed.
  expect(items([0, 2], true, { ...failed, status: "cancelled" })).toEqual([]);
  expect(failedItems(failed, new Map([[3, problem]]), new Set(), false)).toEqual([{ item: 3, failure: problem }]);
});

const CACHE = {
  id: "c",
  text: "Hello",
  tokens: ["Hello"],
  label: null,
  positions: "last",
  n_layers: 4,
  hooks: [0, 2]
    .map((layer) => ({ hook: `blocks.${layer}.hook_resid_post`, dtype: "float16" }))
    .concat({ hook: "logits", dtype: "float16" }),
  bos: { requested: false },
  provenance: { interventions: [] },
  completion: { sample: 0, n: 1, max_new_tokens: 5, temperature: 0.5, seed: 9, top_p: 0.9, stop: ["\n"] },
} as unknown as Cache;

test("a run is asked for again with its fields", () => {
  const again = againOf(run({ n_items: 1, n_done: 1, priority: "bulk" }), [CACHE]);
  expect(again.leftOut).toEqual([]);
  const form = formOf(withValues(new URLSearchParams(), again.query));
  expect(form).toMatchObject({
    model: "m",
    text: "Hello",
    isByLine: false,
    hooks: ["resid_post", "logits"],
    layers: "0,2",
    positions: "last",
    dtype: "float16",
    bos: "without",
    newTokens: "5",
    temperature: "0.5",
    topP: "0.9",
    seed: "9",
    stop: "\\n",
    tags: "a, b",
    metadata: "k=1",
    priority: "bulk",
  });
});

test("what a form cannot have is said", () => {
  const other = { ...CACHE, text: "two\nlines", positions: [3], provenance: { interventions: [{}] } } as unknown as Cache;
  const { leftOut } = againOf(run({ n_items: 2, metadata: { k: [1] } }), [CACHE, other]);
  expect(leftOut.join(" ")).toMatch(/lists.*several lines.*positions.*interventions/);
  expect(againOf(RUN, []).leftOut).toHaveLength(1);
});

test("files have the name that the server gives them", () => {
  expect(fileName('attachment; filename="run-1.npz"')).toBe("run-1.npz");
  expect(fileName(null)).toBeUndefined();
});
