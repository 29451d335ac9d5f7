import { expect, test } from "vitest";
import { formOf as compareForm, requestOf as compareRequest } from "../../src/pages/compare/compare_form";
import { chips, commandFilter, conditionsOf, filterOf, mapQuery } from "../../src/pages/caches/filter";
import { moved, NOTHING, toggled } from "../../src/pages/caches/selection";
import { entered, formOf, hooksOf, HOOKS, queryOf, requestOf, slices } from "../../src/pages/patching/sweep";
import {
  commandOf,
  differences,
  formOf as steerForm,
  pythonCallOf,
  requestOf as steerRequest,
} from "../../src/pages/steer/steer_form";
import { typical } from "../../src/pages/steer/typical_length";

test("a filter as the address, the API and a command have it", () => {
  const filter = filterOf(new URLSearchParams("text=a&tag=x+y&tag=z&metadata=k%3Dv%3Dw&pinned=true&from=2026-01-02T03:04"));
  const conditions = conditionsOf(filter);
  expect(conditions).toMatchObject({ text: "a", tag: ["x y", "z"], metadata: { k: "v=w" }, pinned: true });
  expect(conditions.created_from).toBe(new Date("2026-01-02T03:04").toISOString());
  expect(commandFilter(filter)).toBe(`--tag 'x y' --tag z --text a --metadata k=v=w --from ${conditions.created_from} --pinned`);
  expect(chips(filter).map(({ text }) => text)).toEqual(["tag x y", "tag z", "k=v=w", "from 2026-01-02T03:04", "pinned"]);
  expect(chips(filter)[0]?.without).toEqual({ tag: ["z"] });
  const twice = filterOf(new URLSearchParams("metadata=k%3D1&metadata=n%3D2&metadata=k%3D3&metadata=nothing&to=soon"));
  expect([twice.metadata, twice.to, chips(twice).length]).toEqual([["k=3", "n=2"], "", 2]);
  expect(mapQuery(filter)).toBeUndefined();
  const onMap = mapQuery(filterOf(new URLSearchParams("text=a+b&tag=x&metadata=k%3Dv")));
  expect(onMap).toMatchObject({ words: "a b", tag: ["x"], metadata: ["k=v"] });
  expect(conditionsOf(filterOf(new URLSearchParams("from=20&metadata=novalue&text=++")))).toEqual({});
});

test("rows are selected one by one and in ranges", () => {
  const idOf = (i: number) => ["a", "b", "c", "d"][i];
  const one = toggled(NOTHING, 1, idOf, false);
  const range = toggled(one, 3, idOf, true);
  expect([...range.ids]).toEqual(["b", "c", "d"]);
  expect([...toggled(range, 2, idOf, false).ids]).toEqual(["b", "d"]);
  expect(toggled(NOTHING, 9, idOf, false)).toBe(NOTHING);
  expect([moved("ArrowUp", 0, 4), moved("End", 0, 4), moved("x", 0, 4)]).toEqual([0, 3, undefined]);
});

test("a sweep in the address, as a request, and in slices", () => {
  const form = formOf(new URLSearchParams("clean=a&corrupt=b&answer=+x&over=heads&direction=noise&hook=nonsense"));
  expect(form).toMatchObject({ hook: "resid_pre", over: "heads", direction: "noise" });
  expect(requestOf(form, [3])).toEqual({
    model: "",
    clean: "a",
    corrupt: "b",
    answer: " x",
    sweep: { hook: "attn.z", layers: [3], heads: "each" },
    direction: "noise",
  });
  expect(formOf(new URLSearchParams(queryOf(form) as Record<string, string>))).toMatchObject({ over: "heads" });
  expect(slices([0, 1, 2, 3, 4], 2)).toEqual([
    [2, 3, 4],
    [0, 1],
  ]);
  expect(slices([0], 10)).toEqual([[0]]);
});

test("answers fill the matrix layer by layer", () => {
  const answer = (layers: number[], values: number[][]) => ({ layers, values, effect: values, normalized: null }) as never;
  const first = entered(null, answer([2], [[1, 2]]), [0, 1, 2]);
  expect([...first.values]).toEqual([Number.NaN, Number.NaN, Number.NaN, Number.NaN, 1, 2]);
  const second = entered(
    first,
    answer(
      [0, 1],
      [
        [3, 4],
        [5, 6],
      ],
    ),
    [0, 1, 2],
  );
  expect([...second.effect]).toEqual([3, 4, 5, 6, 1, 2]);
  expect(second.nDone).toBe(3);
  expect(second).not.toBe(first);
});

test("words that two continuations do not share are marked", () => {
  const [left, right] = differences(" a sense of joy", " a mix of joy now");
  const marked = (pieces: typeof left) => pieces.filter(({ differs }) => differs).map(({ text }) => text);
  expect([marked(left), marked(right)]).toEqual([[" sense"], [" mix", " now"]]);
  expect(left.map(({ text }) => text).join("")).toBe(" a sense of joy");
  expect(differences("", "x")).toEqual([[], [{ text: "x", differs: true }]]);
});

test("steering requests differ in the intervention alone, and expire", () => {
  const form = steerForm(new URLSearchParams("model=m&text=t&direction=d&layer=4&strength=99&temperature=x"));
  expect(form).toMatchObject({ strength: 8, temperature: 0, layer: 4 });
  const { interventions, ...rest } = steerRequest(form, "resid_post");
  expect(interventions).toEqual([{ op: "add", layers: 4, direction: { direction: "d" }, strength: 8 }]);
  expect(rest).toEqual(steerRequest(form, null));
  expect(rest.ttl_seconds).toBe(3600);
  // A strength of zero is no baseline: it is what the slider says.
  expect(steerForm(new URLSearchParams("strength=0")).strength).toBe(0);
});

test("a direction is added at the hook that it is of", () => {
  const form = steerForm(new URLSearchParams("model=m&text=it's&direction=d&layer=4&strength=-1.5"));
  const at = (layer: number, hook: string) => steerRequest({ ...form, layer }, hook).interventions;
  expect(at(4, "attn.z")).toEqual([{ op: "add", hook: "attn.z", layers: 4, direction: { direction: "d" }, strength: -1.5 }]);
  // A hook outside the blocks has no layers.
  expect(at(-1, "embed")).toEqual([{ op: "add", hook: "embed", direction: { direction: "d" }, strength: -1.5 }]);
  expect(pythonCallOf(form, "attn.z")).toContain(`model.steer("d", layers=4, strength=-1.5, hook="attn.z")`);
  expect(pythonCallOf({ ...form, layer: -1 }, "embed")).toContain(`model.steer("d", strength=-1.5, hook="embed")`);
  expect(commandOf(form, "resid_post")).toBe(
    `residuum run 'it'\\''s' -m m --generate 24 --seed 0 --hooks resid_post --positions all --intervene '{"op":"add","layers":4,"direction":{"direction":"d"},"strength":-1.5}'`,
  );
});

test("the typical length leaves out the first token", () => {
  expect(typical(Float64Array.of(10_000, 9, 1, 3))).toBe(3);
  expect(typical(Float64Array.of(10_000, 10, 2))).toBe(6);
  expect(typical(Float64Array.of(7))).toBe(7);
  expect(typical(new Float64Array())).toBeNaN();
});

test("comparisons need what they compare", () => {
  const of = (query: string) => compareRequest(compareForm(new URLSearchParams(query)));
  expect(of("cache=a")).toBeUndefined();
  expect(of("cache=a&cache=b&cache=c")).toMatchObject({ mode: "pairs", a: ["a"], b: ["b", "c"], metrics: ["cosine"] });
  expect(of("mode=matrix&cache=a&cache=b&metric=mae")).toMatchObject({ mode: "matrix", caches: ["a", "b"], metrics: ["mae"] });
  expect(of("mode=layers&a=x&b=y&metric=cosine")).toMatchObject({ a: { tags: ["x"] }, b: { tags: ["y"] }, metrics: ["cka"] });
  expect(of("mode=layers")).toBeUndefined();
});

test("a sweep sends `against` with the logit difference only, and asks for no difference without it", () => {
  const sent = (query: string) => requestOf(formOf(new URLSearchParams(`clean=a&corrupt=b&answer=x&${query}`)));
  expect(sent("against=y")).toMatchObject({ against: "y" });
  expect(sent("against=y&metric=logit_diff")).toMatchObject({ against: "y", metric: "logit_diff" });
  for (const metric of ["logit", "probability", "log_probability"]) {
    expect(sent(`against=y&metric=${metric}`)).toMatchObject({ metric });
    expect(sent(`against=y&metric=${metric}`)).not.toHaveProperty("against");
  }
  expect(sent("metric=logit_diff")).not.toHaveProperty("metric");
});

test("only hooks that a model has are offered", () => {
  const names = ["hook_embed", "blocks.0.hook_resid_pre", "blocks.0.hook_attn_out", "blocks.0.attn.hook_z"];
  expect(hooksOf(names)).toEqual(["resid_pre", "attn_out"]);
  expect(hooksOf(undefined)).toEqual(HOOKS);
});
