/** Lists and pairs as people type them. */

/** `a, b` as a list without empty entries. */
export function commaList(text: string): string[] {
  return text
    .split(",")
    .map((part) => part.trim())
    .filter(Boolean);
}

/** Key and value of `key=value`; the value may have further equals signs. */
export function pairOf(pair: string): [key: string, value: string] {
  const at = pair.indexOf("=");
  return [pair.slice(0, at).trim(), pair.slice(at + 1)];
}
