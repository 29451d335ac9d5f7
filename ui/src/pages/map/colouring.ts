/** What the colours of the points mean: categories with shapes, or numbers on a scale. */

export interface Coloured {
  label?: string | null | undefined;
  tags: readonly string[];
  metadata: Readonly<Record<string, unknown>>;
  n_tokens: number;
  run: string;
}

export interface Category {
  name: string;
  count: number;
}

export type Colouring =
  | {
      kind: "categories";
      /** The most frequent first. */
      categories: readonly Category[];
      /** The category of each point; −1 for those without a value, and for rare ones. */
      of: readonly number[];
      /** Points of no category, and how many values they have (0: they have none). */
      rest: { points: number; values: number };
    }
  | { kind: "numbers"; values: readonly number[]; missing: number };

/** Colours and shapes that can be told apart. */
export const MOST_CATEGORIES = 7;

/** What points can be coloured by: names for the address, in the order of the list. */
export function waysToColour(items: readonly Coloured[]): { value: string; label: string }[] {
  const keys = new Set<string>();
  for (const { metadata } of items) for (const key of Object.keys(metadata)) keys.add(key);
  return [
    { value: "label", label: "label" },
    ...[...keys].sort().map((key) => ({ value: `metadata.${key}`, label: `metadata: ${key}` })),
    { value: "tags", label: "tags" },
    { value: "run", label: "run" },
    { value: "tokens", label: "number of tokens" },
  ];
}

/** The first way that tells points apart. */
export function usualWay(items: readonly Coloured[]): string {
  const tells = (way: string) => new Set(items.map((item) => valueOf(item, way)).filter((value) => value !== undefined)).size > 1;
  const ways = waysToColour(items).map(({ value }) => value);
  return ways.find((way) => way !== "tokens" && tells(way)) ?? "label";
}

function valueOf(item: Coloured, way: string): string | number | undefined {
  if (way === "label") return item.label ?? undefined;
  if (way === "tags") return item.tags.length > 0 ? [...item.tags].sort().join(", ") : undefined;
  if (way === "run") return item.run;
  if (way === "tokens") return item.n_tokens;
  const value = way.startsWith("metadata.") ? item.metadata[way.slice("metadata.".length)] : undefined;
  if (value === undefined || value === null) return undefined;
  return typeof value === "number" ? value : typeof value === "string" ? value : JSON.stringify(value);
}

/** Numbers with more values than there are colours are on a scale; anything else is a category. */
export function colouringOf(items: readonly Coloured[], way: string): Colouring {
  const values = items.map((item) => valueOf(item, way));
  const present = values.filter((value) => value !== undefined);
  const isNumeric = present.length > 0 && present.every((value) => typeof value === "number");
  if (isNumeric && (way === "tokens" || new Set(present).size > MOST_CATEGORIES)) {
    const missing = values.length - present.length;
    return { kind: "numbers", values: values.map((value) => (typeof value === "number" ? value : Number.NaN)), missing };
  }
  const counts = new Map<string, number>();
  for (const value of present) counts.set(String(value), (counts.get(String(value)) ?? 0) + 1);
  const all = [...counts].map(([name, count]) => ({ name, count }));
  all.sort((a, b) => b.count - a.count || a.name.localeCompare(b.name));
  const categories = all.slice(0, MOST_CATEGORIES);
  const index = new Map(categories.map(({ name }, i) => [name, i]));
  const of = values.map((value) => (value === undefined ? -1 : (index.get(String(value)) ?? -1)));
  const points = of.filter((i) => i < 0).length;
  return { kind: "categories", categories, of, rest: { points, values: all.length - categories.length } };
}
