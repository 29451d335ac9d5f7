/** Names of the variable parts of a pattern such as `/caches/:id/lens`. */
export type Params = Record<string, string>;

/** The parts of a path that a pattern names, or undefined if it does not match. */
export function match(pattern: string, path: string): Params | undefined {
  const wanted = pattern.split("/");
  const given = path.split("/");
  if (wanted.length !== given.length) return undefined;
  const params: Params = {};
  for (const [i, part] of wanted.entries()) {
    const value = given[i] as string;
    if (!part.startsWith(":")) {
      if (part !== value) return undefined;
    } else {
      try {
        params[part.slice(1)] = decodeURIComponent(value);
      } catch {
        return undefined;
      }
    }
  }
  return params;
}
