/** Numbers of rows of activations: lengths and cosines. Sums are in float64. */

/** Rows `[n, width]`, row-major. */
export interface Rows {
  n: number;
  width: number;
  data: Float32Array;
}

export function norms({ n, width, data }: Rows): Float64Array {
  const found = new Float64Array(n);
  for (let row = 0; row < n; row++) {
    let sum = 0;
    for (let i = row * width; i < (row + 1) * width; i++) sum += (data[i] as number) ** 2;
    found[row] = Math.sqrt(sum);
  }
  return found;
}

/** Cosine of each row with row `of`; NaN where one of them is zero. */
export function cosines(rows: Rows, of: number): Float64Array {
  const { n, width, data } = rows;
  const lengths = norms(rows);
  const found = new Float64Array(n);
  for (let row = 0; row < n; row++) {
    let dot = 0;
    for (let i = 0; i < width; i++) dot += (data[row * width + i] as number) * (data[of * width + i] as number);
    const size = (lengths[row] as number) * (lengths[of] as number);
    found[row] = size === 0 ? Number.NaN : dot / size;
  }
  return found;
}

/** Values of held positions, spread over all tokens; NaN for tokens without a row. */
export function spread(values: ArrayLike<number>, held: readonly number[], nTokens: number): Float64Array {
  const found = new Float64Array(nTokens).fill(Number.NaN);
  held.forEach((position, i) => {
    found[position] = values[i] ?? Number.NaN;
  });
  return found;
}
