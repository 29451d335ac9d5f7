/** The numbers of nested arrays in row-major order; null is NaN. */
export function flatNumbers(nested: unknown): number[] {
  if (typeof nested === "number") return [nested];
  if (nested === null) return [Number.NaN];
  return Array.isArray(nested) ? nested.flatMap(flatNumbers) : [];
}
