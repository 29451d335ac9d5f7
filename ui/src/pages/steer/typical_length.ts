/** The median length of the tokens' rows. The first is left out where there are others: in many models it is far longer than they are. */
export function typical(lengths: Float64Array): number {
  const rest = (lengths.length > 1 ? lengths.slice(1) : lengths.slice()).sort();
  const half = rest.length >> 1;
  const upper = rest[half] ?? Number.NaN;
  return rest.length % 2 === 1 ? upper : ((rest[half - 1] ?? Number.NaN) + upper) / 2;
}
