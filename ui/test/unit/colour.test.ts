import { expect, test } from "vitest";
import { diverging, extentOf, luminanceOf, scaleFor, sequential } from "../../src/colour/scale";

test("zero is in the middle of a diverging scale, whatever the values", () => {
  const scale = scaleFor([-1, 7], "light");
  expect([scale.kind, scale.min, scale.max]).toEqual(["diverging", -7, 7]);
  expect(scale.rgb(0)).toEqual(diverging(1, "light").rgb(0));
});

test.each(["light", "dark"] as const)("lightness of the %s sequential scale changes in one direction", (theme) => {
  const scale = sequential(0, 1, theme);
  const light = Array.from({ length: 40 }, (_, i) => luminanceOf(scale.rgb(i / 39)));
  const sign = theme === "light" ? -1 : 1;
  for (let i = 1; i < light.length; i++)
    expect(((light[i] as number) - (light[i - 1] as number)) * sign).toBeGreaterThanOrEqual(-1e-3);
});

test("ink has a contrast of at least 4.5 on every colour", () => {
  for (const theme of ["light", "dark"] as const) {
    for (const scale of [sequential(0, 1, theme), diverging(1, theme)]) {
      for (let i = 0; i <= 100; i++) {
        const value = scale.min + ((scale.max - scale.min) * i) / 100;
        const ground = luminanceOf(scale.rgb(value));
        const ink = scale.ink(value) === "#fff" ? 1 : 0;
        expect((Math.max(ground, ink) + 0.05) / (Math.min(ground, ink) + 0.05)).toBeGreaterThanOrEqual(4.5);
      }
    }
  }
});

test("values that are not finite do not stretch a scale", () => {
  expect(extentOf([Number.NaN, 2, Infinity, 3])).toEqual({ min: 2, max: 3 });
  expect(extentOf([])).toEqual({ min: 0, max: 1 });
});
