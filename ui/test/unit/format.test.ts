import { expect, test } from "vitest";
import { bytes, count, percent, significant } from "../../src/format/numbers";
import { curlOf, pythonOf, shellWord } from "../../src/format/snippets";
import { duration } from "../../src/format/time";
import { preview, visible } from "../../src/format/tokens";

test("significant digits", () => {
  expect([0, 1, 0.123456, 12345.678, 1e-7, -3.14159, Number.NaN, Infinity, 123456].map((x) => significant(x))).toEqual([
    "0",
    "1",
    "0.1235",
    "12346",
    "1e-7",
    "−3.142",
    "NaN",
    "∞",
    "123456",
  ]);
});

test("percentages never round up to certainty", () => {
  expect([0, 1e-9, 0.0004, 0.5, 0.99999, 1].map(percent)).toEqual([
    "0.00 %",
    "< 0.01 %",
    "0.04 %",
    "50.0 %",
    "99.9 %",
    "100.0 %",
  ]);
});

test("counts, bytes and durations", () => {
  expect(count(1234567)).toBe("1\u202f234\u202f567");
  expect([999, 1000, 123456, 999_999_999].map(bytes)).toEqual(["999 B", "1 kB", "123 kB", "1 GB"]);
  expect([3, 61, 4800, 40_000, 200_000].map(duration)).toEqual(["3 s", "1 min", "1 h 20 min", "11 h", "2 d"]);
});

test("what cannot be seen gets a sign", () => {
  expect(visible(" a\n\t\u202e")).toBe("·a↵→⟨202E⟩");
  expect(preview("a  b\nc", 4)).toBe("a b…");
});

test("commands are quoted", () => {
  expect(shellWord("it's")).toBe(`'it'\\''s'`);
  expect(pythonOf({ a: [true, null, 'x"y'], b: undefined })).toBe('{"a": [True, None, "x\\"y"]}');
  const line = curlOf({ method: "POST", path: "/v1/runs", body: { model: "m", input: "it's" } }, "http://h:1", true);
  expect(line).toContain('-H "Authorization: Bearer $RESIDUUM_API_KEY"');
  expect(line).toContain(`-d '{"model":"m","input":"it'\\''s"}'`);
});
