import { expect, test } from "vitest";
import {
  EMPTY,
  faultsOf,
  fieldOf,
  formOf,
  isLong,
  parseMetadata,
  queryOf,
  requestOf,
  type RunForm,
} from "../../src/pages/home/form";
import { hookGroups } from "../../src/pages/home/hooks";
import { shortName } from "../../src/format/hooks";
import { parseLayers } from "../../src/pages/home/layers";
import { marked, parsePositions, positionsText, withPosition } from "../../src/pages/home/positions";
import { commandRun, pythonRun } from "../../src/pages/home/snippets";
import { withValues } from "../../src/router/location";
import type { ReadyModel } from "../../src/server/catalogue";

const form = (values: Partial<RunForm>): RunForm => ({ ...EMPTY, model: "m", ...values });
const through = (values: RunForm) => formOf(new URLSearchParams(withValues(new URLSearchParams(), queryOf(values)).toString()));

test("layers are lists, ranges without their end, steps and numbers from the end", () => {
  const layers = (text: string) => {
    const parsed = parseLayers(text, 30);
    return "layers" in parsed ? parsed.layers : parsed.fault;
  };
  expect(layers("")).toBeUndefined();
  expect(layers(" all ")).toBe("all");
  expect(layers("0,6,12:16")).toEqual([0, 6, 12, 13, 14, 15]);
  expect(layers("::10")).toEqual([0, 10, 20]);
  expect(layers("-1, 3 3")).toEqual([3, 29]);
  expect(layers("-2:")).toEqual([28, 29]);
});

test.each(["30", "-31", "12:31", "5:5", "0:9:0", "x", "1.5", "all,3"])("layers %s are refused with a reason", (text) => {
  const parsed = parseLayers(text, 30);
  expect("fault" in parsed && parsed.fault.length).toBeGreaterThan(10);
});

test("positions are what the command line takes", () => {
  const positions = (text: string) => {
    const parsed = parsePositions(text);
    return "fault" in parsed ? "fault" : parsed.positions;
  };
  expect(positions("")).toBeUndefined();
  expect(positions("generated")).toBe("generated");
  expect(positions("3")).toBe(3);
  expect(positions("0, 2,-1")).toEqual([0, 2, -1]);
  expect(positions("2:5")).toEqual({ start: 2, end: 5 });
  expect(positions("text:Tower")).toEqual({ text: "Tower" });
  expect(positions('{"special": false}')).toEqual({ special: false });
  expect(positions("[4]")).toEqual([4]);
  expect([positions("{x"), positions("text:"), positions("lasts"), positions("1e9")]).toEqual([
    "fault",
    "fault",
    "fault",
    "fault",
  ]);
});

test("positions of an answer are typed so that they mean the same", () => {
  for (const value of ["last", 5, [0, 2, -1], [4], { start: 1, end: 8 }, { mean: [0, 1] }]) {
    const parsed = parsePositions(positionsText(value));
    expect("positions" in parsed && parsed.positions).toEqual(value);
  }
});

test("a click adds and removes a position, and replaces a word", () => {
  expect(withPosition("", 3)).toBe("3");
  expect(withPosition("3", 1)).toBe("1,3");
  expect(withPosition("1,3", 3)).toBe("1");
  expect(withPosition("all", 2)).toBe("2");
  expect([...marked("-1", 4)]).toEqual([3]);
  expect([...marked("1:3", 4)]).toEqual([1, 2]);
  expect([...marked("all", 2)]).toEqual([0, 1]);
  expect(marked("nonsense", 4).size).toBe(0);
});

test("every field of a form survives the address", () => {
  const full = form({
    mode: "chat",
    text: "a & b\nשלום",
    isByLine: true,
    messages: [
      { role: "system", content: "Be: brief" },
      { role: "user", content: "<b>" },
    ],
    hooks: ["resid_post", "attn.pattern"],
    layers: "0,6",
    positions: "text:x",
    newTokens: "4",
    temperature: "0.5",
    topP: "0.9",
    seed: "7",
    samples: "2",
    stop: "\\n",
    dtype: "float16",
    bos: "without",
    tags: "a, b",
    label: "l",
    metadata: "k=1",
    priority: "bulk",
  });
  expect(through(full)).toEqual(full);
  expect(through(EMPTY)).toEqual(EMPTY);
});

test("long texts stay out of the address, and nonsense in it is left out", () => {
  const long = form({ text: "x".repeat(5_000) });
  expect(isLong(long)).toBe(true);
  expect(through(long).text).toBe("");
  expect(through(long).model).toBe("m");
  expect(formOf(new URLSearchParams("dtype=int8&priority=now&bos=maybe&mode=x"))).toEqual(EMPTY);
});

test("a form makes the body of the API", () => {
  const { body, faults } = requestOf(
    form({
      text: "one\n\ntwo",
      isByLine: true,
      hooks: ["resid_post"],
      layers: "::2",
      positions: "last",
      dtype: "bfloat16",
      newTokens: "3",
      stop: "\\n",
      samples: "2",
      bos: "with",
      tags: "a,, b",
      metadata: "n=1\ns=x=y",
      label: "L",
      priority: "normal",
    }),
    4,
  );
  expect(faults).toEqual({});
  expect(body).toEqual({
    model: "m",
    items: [
      { text: "one", label: "L" },
      { text: "two", label: "L" },
    ],
    capture: { hooks: ["resid_post"], layers: [0, 2], positions: "last", dtype: "bfloat16" },
    generate: { max_new_tokens: 3, n: 2, stop: "\n" },
    prepend_bos: true,
    tags: ["a", "b"],
    metadata: { n: 1, s: "x=y" },
  });
});

test("wrong fields are named, each by its own name", () => {
  const wrong = {
    layers: "99",
    positions: "?",
    newTokens: "2",
    temperature: "-1",
    topP: "0",
    seed: "1.5",
    samples: "0",
    metadata: "x",
  };
  expect(Object.keys(requestOf(form({ text: "a", ...wrong }), 4).faults).sort()).toEqual(
    ["layers", "metadata", "positions", "samples", "seed", "temperature", "topP"].sort(),
  );
  expect(requestOf(form({ text: "a", newTokens: "0" }), 4).faults.newTokens).toBeDefined();
  expect(requestOf(form({}), 4).faults.text).toBeDefined();
});

test("pointers of the API lead to fields", () => {
  const found = [
    "/input/3",
    "/items/0/positions",
    "/items/2/text",
    "/messages/1/role",
    "/capture/hooks/0",
    "/generate/n",
    "/nothing",
  ];
  expect(found.map(fieldOf)).toEqual(["text", "positions", "text", "messages", "hooks", "samples", undefined]);
  expect(
    faultsOf([
      { pointer: "/input/1", detail: "empty" },
      { pointer: "/capture/layers", detail: "no layer" },
    ]),
  ).toEqual({ text: "Text 2: empty", layers: "no layer" });
});

test("metadata keep the types of numbers and words", () => {
  expect(parseMetadata("a=1\nb=-2.5e3\nc=true\nd=null\ne=07x\n\nf=")).toEqual({
    a: 1,
    b: -2500,
    c: true,
    d: null,
    e: "07x",
    f: "",
  });
  expect(parseMetadata("=1")).toContain("=1");
});

test("hooks are grouped by short names", () => {
  expect(["blocks.3.attn.hook_pattern", "blocks.0.hook_resid_post", "hook_embed", "logits"].map(shortName)).toEqual([
    "attn.pattern",
    "resid_post",
    "hook_embed",
    "logits",
  ]);
  const point = (hook: string, layer: number | null) => ({ hook, layer, shape: [null, 8], axes: ["pos", "d_model"] });
  const hooks = [
    point("hook_embed", null),
    point("blocks.0.hook_resid_post", 0),
    point("blocks.1.hook_resid_post", 1),
    point("blocks.0.mlp.hook_post", 0),
  ];
  const groups = hookGroups({ hooks } as unknown as ReadyModel);
  expect(groups.map(({ title, hooks: found }) => [title, found.map(({ name, nLayers }) => `${name} ${nLayers}`)])).toEqual([
    ["Residual stream", ["resid_post 2"]],
    ["MLP", ["mlp.post 1"]],
    ["Before and after the blocks", ["hook_embed 0"]],
  ]);
});

test("commands quote what is dangerous, and are left out where there is none", () => {
  const { body } = requestOf(
    form({ text: `-x'; rm "$HOME"`, positions: '{"special":false}', metadata: "a=[1\nb=2", priority: "normal" }),
    4,
  );
  expect(commandRun(body)).toBe(
    `residuum run -m m --positions='{"special":false}' '--metadata=a=[1' --metadata=b=2 -- '-x'\\''; rm "$HOME"'`.replace(
      "'--metadata=a=[1'",
      "--metadata='a=[1'",
    ),
  );
  expect(pythonRun(body, "http://h")).toContain(`client.model("m").run("-x'; rm \\"$HOME\\""`);
  const chat = requestOf(
    form({
      mode: "chat",
      messages: [
        { role: "system", content: "S" },
        { role: "user", content: "a b" },
      ],
      priority: "normal",
    }),
    4,
  ).body;
  expect(commandRun(chat)).toBe("residuum run -m m --system=S --user='a b'");
  chat.messages?.push({ role: "assistant", content: "c" });
  expect(commandRun(chat)).toBeUndefined();
});

test("a position that an input lacks is a fault of the positions", () => {
  expect(faultsOf([{ pointer: "/input/0", detail: "no 5" }], "position_out_of_range")).toEqual({ positions: "Text 1: no 5" });
});
