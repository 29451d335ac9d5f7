import { expect, test } from "vitest";
import { componentsOf } from "../../src/pages/map/pca";

/** Centres rows, and gives their dot products. */
function gramOf(rows: readonly (readonly number[])[]): Float64Array {
  const n = rows.length;
  const d = rows[0]?.length ?? 0;
  const mean = Array.from({ length: d }, (_, j) => rows.reduce((sum, row) => sum + (row[j] as number), 0) / n);
  const centred = rows.map((row) => row.map((value, j) => value - (mean[j] as number)));
  return Float64Array.from({ length: n * n }, (_, at) => {
    const [a, b] = [centred[Math.floor(at / n)] as number[], centred[at % n] as number[]];
    return a.reduce((sum, value, j) => sum + value * (b[j] as number), 0);
  });
}

let state = 7;
const random = () => {
  state = (state * 48271) % 2147483647;
  return state / 2147483647 - 0.5;
};
const product = (a: Float64Array, b: Float64Array) => a.reduce((sum, value, i) => sum + value * (b[i] as number), 0);

test("a closed form: a cross with arms of 3 and 1", async () => {
  const { scores, variance, share } = await componentsOf(
    gramOf([
      [3, 0],
      [-3, 0],
      [0, 1],
      [0, -1],
    ]),
    4,
    4,
  );
  expect(scores).toHaveLength(2);
  // Variances with three degrees of freedom: 18 / 3 and 2 / 3.
  expect(variance[0]).toBeCloseTo(6, 10);
  expect(variance[1]).toBeCloseTo(2 / 3, 10);
  expect(share[0]).toBeCloseTo(0.9, 12);
  expect(scores[0]?.map(Math.abs)[0]).toBeCloseTo(3, 9);
  expect(scores[1]?.map(Math.abs)[2]).toBeCloseTo(1, 9);
});

test("equal variances: all components are found, and distances are kept", async () => {
  const rows = [0, 1, 2, 3, 4].map((i) => [0, 1, 2, 3, 4].map((j) => (i === j ? 1 : 0)));
  const { scores, share } = await componentsOf(gramOf(rows), 5, 4);
  expect(share.map((value) => value.toFixed(10))).toEqual(["0.2500000000", "0.2500000000", "0.2500000000", "0.2500000000"]);
  // The corners of a simplex are √2 apart in all four components together.
  const squared = scores.reduce((sum, score) => sum + ((score[0] as number) - (score[3] as number)) ** 2, 0);
  expect(squared).toBeCloseTo(2, 9);
});

test("invariants on noise: variance of the coordinates, orthogonality, mean zero, order, whole variance", async () => {
  const n = 60;
  const rows = Array.from({ length: n }, () => Array.from({ length: 40 }, (_, j) => random() * (10 / (1 + j))));
  const gram = gramOf(rows);
  const { scores, variance, share } = await componentsOf(gram, n, 4);
  expect(scores).toHaveLength(4);
  for (const [j, score] of scores.entries()) {
    expect(product(score, score) / (n - 1)).toBeCloseTo(variance[j] as number, 8);
    expect(Math.abs(score.reduce((sum, value) => sum + value, 0))).toBeLessThan(1e-8);
    expect(Math.max(...score)).toBeGreaterThan(-Math.min(...score));
    // An eigenvector of the Gram matrix: G s = λ s.
    const lambda = (variance[j] as number) * (n - 1);
    for (let i = 0; i < n; i++) {
      const image = score.reduce((sum, value, m) => sum + value * (gram[i * n + m] as number), 0);
      expect(Math.abs(image - lambda * (score[i] as number))).toBeLessThan(1e-7 * lambda);
    }
  }
  for (let j = 1; j < 4; j++) {
    expect(Math.abs(product(scores[0] as Float64Array, scores[j] as Float64Array))).toBeLessThan(1e-7);
    expect(variance[j] as number).toBeLessThanOrEqual(variance[j - 1] as number);
  }
  const trace = Array.from({ length: n }, (_, i) => gram[i * n + i] as number).reduce((sum, value) => sum + value);
  expect((variance[0] as number) / (trace / (n - 1))).toBeCloseTo(share[0] as number, 12);
});

test("points that coincide have no components, two points have one, and what is not finite is said", async () => {
  expect((await componentsOf(new Float64Array(9), 3, 2)).scores).toEqual([]);
  const two = await componentsOf(
    gramOf([
      [0, 0],
      [3, 4],
    ]),
    2,
    4,
  );
  expect(two.scores.map((score) => [...score].map(Math.abs))).toEqual([[expect.closeTo(2.5, 9), expect.closeTo(2.5, 9)]]);
  expect(two.share[0]).toBeCloseTo(1, 12);
  await expect(componentsOf(Float64Array.of(Number.NaN, 0, 0, 1), 2, 2)).rejects.toThrow("NaN");
});
