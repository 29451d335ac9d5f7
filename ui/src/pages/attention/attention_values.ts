/** Numbers of attention patterns. A pattern is `[head, query, key]`, row-major; each row sums to 1. */

export interface Pattern {
  nHeads: number;
  nQueries: number;
  nKeys: number;
  values: Float32Array;
  /** Position of each query; keys are all positions from 0. */
  queries: readonly number[];
}

/** One head as `[query, key]`: a view. */
export function headOf(pattern: Pattern, head: number): Float32Array {
  const size = pattern.nQueries * pattern.nKeys;
  return pattern.values.subarray(head * size, (head + 1) * size);
}

export interface HeadSummary {
  /** Mean entropy of the rows, in nats. */
  entropy: number;
  /** Mean of weight × distance in tokens, over all queries. */
  distance: number;
  /** Mean weight on the first token. */
  first: number;
  /** Mean weight on the token before, over queries that have one. */
  previous: number;
}

export function summaryOf(pattern: Pattern, head: number): HeadSummary {
  const values = headOf(pattern, head);
  const { nQueries, nKeys, queries } = pattern;
  let [entropy, distance, first, previous, nWithPrevious] = [0, 0, 0, 0, 0];
  for (let row = 0; row < nQueries; row++) {
    const position = queries[row] as number;
    for (let key = 0; key < nKeys; key++) {
      const weight = values[row * nKeys + key] as number;
      if (weight > 0) entropy -= weight * Math.log(weight);
      distance += weight * Math.abs(position - key);
    }
    first += values[row * nKeys] as number;
    if (position > 0) {
      previous += values[row * nKeys + position - 1] as number;
      nWithPrevious++;
    }
  }
  return {
    entropy: entropy / nQueries,
    distance: distance / nQueries,
    first: first / nQueries,
    previous: nWithPrevious === 0 ? Number.NaN : previous / nWithPrevious,
  };
}

/** The weights of a query over the keys: one row of a head. */
export function rowOf(pattern: Pattern, head: number, row: number): Float32Array {
  return headOf(pattern, head).subarray(row * pattern.nKeys, (row + 1) * pattern.nKeys);
}

/** The `n` keys with the largest weights, largest first; among equals the earlier. */
export function largest(weights: Float32Array, n: number): number[] {
  return [...weights.keys()].sort((a, b) => (weights[b] as number) - (weights[a] as number) || a - b).slice(0, n);
}
