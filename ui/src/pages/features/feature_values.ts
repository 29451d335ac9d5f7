/** Numbers of the features of an autoencoder over the tokens of a cache. */
import type { Schemas } from "../../server/catalogue";

export type Found = Schemas["FeatureActivations"];

export interface Grid {
  /** Features, the one with the largest activation first. */
  features: number[];
  /** `[feature, position]`, row-major; 0 where a feature is not among the most active. */
  values: Float64Array;
}

/**
 * The most active features over all positions, and their activations. The first token does not decide which: it is often an
 * attention sink, whose row is many times as long as all others.
 */
export function gridOf(found: Found, most: number): Grid {
  const largest = new Map<number, number>();
  for (const { top } of ranking(found))
    for (const { feature, activation } of top) largest.set(feature, Math.max(largest.get(feature) ?? 0, activation));
  const features = [...largest]
    .sort((a, b) => b[1] - a[1] || a[0] - b[0])
    .map(([feature]) => feature)
    .slice(0, most);
  const columns = found.positions.length;
  const values = new Float64Array(features.length * columns);
  found.positions.forEach(({ top }, column) => {
    for (const { feature, activation } of top) {
      const row = features.indexOf(feature);
      if (row >= 0) values[row * columns + column] = activation;
    }
  });
  return { features, values };
}

/** The positions that decide about order and scale: all but the first token, if there are others. */
function ranking({ positions }: Found): Found["positions"] {
  const others = positions.filter(({ position }) => position > 0);
  return others.some(({ top }) => top.length > 0) ? others : positions;
}

/** The largest activation among these positions. */
export function largestOf(found: Found): number {
  return Math.max(0, ...ranking(found).flatMap(({ top }) => top.map(({ activation }) => activation)));
}
