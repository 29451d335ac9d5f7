import { expect, test } from "vitest";
import { colouringOf, type Coloured, usualWay, waysToColour } from "../../src/pages/map/colouring";
import {
  domainFrom,
  domainOf,
  domainText,
  frameOf,
  fromPixels,
  nearest,
  neighbourOf,
  ticks,
  toPixels,
  within,
} from "../../src/pages/map/scatter_layout";

test("both axes have the same unit, and pixels lead back", () => {
  const frame = frameOf({ x0: 0, x1: 10, y0: -1, y1: 1 }, 600, 400);
  const [ax, ay] = toPixels(frame, 0, 0);
  const [bx] = toPixels(frame, 1, 0);
  const [, cy] = toPixels(frame, 0, 1);
  expect(bx - ax).toBeCloseTo(ay - cy, 9);
  expect(fromPixels(frame, ax, ay).map((value) => Math.abs(value) < 1e-9)).toEqual([true, true]);
  for (const corner of [toPixels(frame, 0, -1), toPixels(frame, 10, 1)]) {
    expect(corner[0]).toBeGreaterThanOrEqual(frame.left);
    expect(corner[1]).toBeLessThanOrEqual(400 - frame.bottom);
  }
});

test("one point, or none, still has a frame", () => {
  for (const points of [[], [5], [5, 5]]) {
    const frame = frameOf(domainOf(points, points), 600, 400);
    expect(toPixels(frame, 5, 5).every(Number.isFinite)).toBe(true);
  }
});

test("ticks are round and within", () => {
  expect(ticks(-12, 31, 5)).toEqual([-10, 0, 10, 20, 30]);
  expect(ticks(0.1, 0.45, 4)).toEqual([0.1, 0.2, 0.3, 0.4]);
  expect(ticks(3, 3, 4)).toEqual([]);
});

test("the nearest point, arrow keys and rectangles", () => {
  const x = [0, 10, 10, 0];
  const y = [0, 1, 10, 10];
  const frame = frameOf(domainOf(x, y), 500, 500);
  const [px, py] = toPixels(frame, 10, 1);
  expect(nearest(frame, x, y, px + 3, py - 3)).toBe(1);
  expect(nearest(frame, x, y, px - 60, py)).toBeUndefined();
  expect(neighbourOf("ArrowRight", 0, x, y)).toBe(1);
  expect(neighbourOf("ArrowUp", 0, x, y)).toBe(3);
  expect(neighbourOf("ArrowLeft", 0, x, y)).toBeUndefined();
  expect(neighbourOf("a", 0, x, y)).toBeUndefined();
  expect(within({ x0: 5, x1: 12, y0: 0, y1: 5 }, x, y)).toEqual([1]);
});

test("a zoom in the address", () => {
  expect(domainFrom(domainText({ x0: -1.23456789, x1: 2, y0: 0, y1: 1e6 }))).toEqual({ x0: -1.23457, x1: 2, y0: 0, y1: 1e6 });
  for (const text of ["", "1,2,3", "2,1,0,1", "a,b,c,d", "0,1,0,1,2", "0,1,0,"]) expect(domainFrom(text)).toBeUndefined();
});

const item = (given: Partial<Coloured>): Coloured => ({ tags: [], metadata: {}, n_tokens: 1, run: "r", ...given });

test("categories by frequency; rare ones and missing ones are no category", () => {
  const items = ["b", "a", "a", null, ..."cdefgh"].map((label) => item({ label }));
  const colouring = colouringOf(items, "label");
  if (colouring.kind !== "categories") throw new Error("not categories");
  expect(colouring.categories.map(({ name }) => name)).toEqual(["a", "b", "c", "d", "e", "f", "g"]);
  expect(colouring.of.slice(0, 4)).toEqual([1, 0, 0, -1]);
  expect(colouring.rest).toEqual({ points: 2, values: 1 });
});

test("many numbers are on a scale, a few are categories, as are booleans", () => {
  const scores = Array.from({ length: 9 }, (_, i) => item({ metadata: { score: i / 3, fold: i % 3, ok: i > 4 } }));
  expect(colouringOf([...scores, item({})], "metadata.score")).toMatchObject({ kind: "numbers", missing: 1 });
  expect(colouringOf(scores, "metadata.fold")).toMatchObject({
    kind: "categories",
    categories: [{ name: "0", count: 3 }, {}, {}],
  });
  expect(colouringOf(scores, "metadata.ok")).toMatchObject({ categories: [{ name: "false" }, { name: "true" }] });
  expect(usualWay(scores)).toBe("metadata.fold");
  expect(waysToColour(scores).map(({ value }) => value)).toContain("metadata.score");
});
