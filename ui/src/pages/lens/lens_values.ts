/** The numbers that the grid of the logit lens shows. */
import type { Schemas } from "../../server/catalogue";
import { type Scale, scaleFor, sequential, type Theme } from "../../colour/scale";
import { percent, significant } from "../../format/numbers";
import { visible } from "../../format/tokens";

export type Lens = Schemas["Lens"];
export type Distribution = Lens["values"][number][number];

/** What the colour of a cell stands for. */
export const MEASURES = [
  { value: "probability", label: "Probability of the top token" },
  { value: "entropy", label: "Entropy" },
  { value: "kl", label: "KL from the model's own" },
  { value: "followed", label: "Probability of the followed token" },
  { value: "rank", label: "Rank of the followed token" },
] as const;
export type Measure = (typeof MEASURES)[number]["value"];

/** Rows of the grid from the last layer down to the first, so that layers grow upwards. */
export function layerOfRow(lens: Lens, row: number): number {
  return lens.layers.length - 1 - row;
}

/** The value of one distribution; NaN where there is none. */
export function valueOf(of: Distribution | undefined, measure: Measure): number {
  const followed = of?.tokens[0];
  switch (measure) {
    case "probability":
      return of?.top[0]?.probability ?? Number.NaN;
    case "entropy":
      return of?.entropy ?? Number.NaN;
    case "kl":
      return of?.kl ?? Number.NaN;
    case "followed":
      return followed?.probability ?? Number.NaN;
    case "rank":
      // As powers of ten: most of the range is far from the top.
      return followed ? Math.log10(followed.rank + 1) : Number.NaN;
  }
}

/** Row-major values `[layers, positions]`, from the last layer on. */
export function gridOf(lens: Lens, measure: Measure): Float64Array {
  const columns = lens.positions.length;
  const grid = new Float64Array(lens.layers.length * columns);
  for (let row = 0; row < lens.layers.length; row++) {
    const values = lens.values[layerOfRow(lens, row)] ?? [];
    for (let column = 0; column < columns; column++) grid[row * columns + column] = valueOf(values[column], measure);
  }
  return grid;
}

export function scaleOf(grid: Float64Array, measure: Measure, theme: Theme): Scale {
  if (measure === "probability" || measure === "followed") return sequential(0, 1, theme);
  return scaleFor(grid, theme);
}

export const UNITS: Record<Measure, string> = {
  probability: "probability",
  entropy: "nats",
  kl: "nats",
  followed: "probability",
  rank: "rank, 0 is the top",
};

/** A value of the scale as the legend shows it. */
export function labelOf(measure: Measure): (value: number) => string {
  if (measure === "rank") return (value) => significant(Math.round(10 ** value - 1), 3);
  return measure === "probability" || measure === "followed" ? percent : significant;
}

/** A cell in words: where it is, what would come next, and the value of its colour. */
export function describeCell(lens: Lens, row: number, column: number, measure: Measure): string {
  const index = layerOfRow(lens, row);
  const found = lens.values[index]?.[column];
  const top = (found?.top ?? []).map(({ token, probability }) => `${visible(token)} ${percent(probability)}`);
  const where = `Layer ${lens.layers[index]}, after ${visible(lens.position_tokens[column] ?? "")} (position ${lens.positions[column]})`;
  const lines = [where, ...(top.length > 0 ? top : ["not a number"])];
  const followed = found?.tokens[0];
  if (followed) lines.push(`${visible(lens.tokens[0]?.token ?? "")}: rank ${followed.rank}, ${percent(followed.probability)}`);
  else if (measure === "entropy" || measure === "kl") lines.push(`${significant(valueOf(found, measure))} nats`);
  return lines.join("\n");
}
