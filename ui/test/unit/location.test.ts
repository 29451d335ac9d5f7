import { expect, test } from "vitest";
import { neighbour } from "../../src/components/heatmap";
import { href, placeOf, withValues } from "../../src/router/location";
import { match } from "../../src/router/match";

test("addresses", () => {
  expect(href("/caches", { tag: ["a b", "c"], label: "", pinned: false, limit: 5 })).toBe("/ui/caches?tag=a+b&tag=c&limit=5");
  expect(href("/")).toBe("/ui/");
  expect(placeOf("/ui/", "").path).toBe("/");
  expect(placeOf("/ui/caches/", "?a=1").path).toBe("/caches");
  expect(withValues(new URLSearchParams("a=1&b=2"), { a: null, c: 3 }).toString()).toBe("b=2&c=3");
});

test("patterns", () => {
  expect(match("/caches/:id/lens", "/caches/abc/lens")).toEqual({ id: "abc" });
  expect(match("/caches/:id", "/caches/a%2Fb")).toEqual({ id: "a/b" });
  expect(match("/caches/:id", "/caches/%zz")).toBeUndefined();
  expect(match("/caches", "/runs")).toBeUndefined();
});

test("arrow keys stop at the edges of a matrix", () => {
  expect(neighbour("ArrowUp", { row: 0, column: 3 }, 4, 5)).toEqual({ row: 0, column: 3 });
  expect(neighbour("End", { row: 0, column: 0 }, 4, 5, true)).toEqual({ row: 3, column: 4 });
  expect(neighbour("a", { row: 0, column: 0 }, 4, 5)).toBeUndefined();
});
