/** The filter of the list of caches: as the address has it, as the API takes it, as a command. */
import type { Query } from "residuum";
import { pairOf } from "../../format/lists";
import { pythonOf, shellWord } from "../../format/snippets";

export interface CacheFilter {
  text: string;
  model: string;
  run: string;
  tags: string[];
  label: string;
  /** `key=value` of the metadata. */
  metadata: string[];
  hook: string;
  /** As `datetime-local` has it, in the reader's own zone. */
  from: string;
  to: string;
  isPinned: boolean;
}

export function filterOf(query: URLSearchParams): CacheFilter {
  const text = (name: string) => query.get(name) ?? "";
  return {
    text: text("text"),
    model: text("model"),
    run: text("run"),
    tags: query.getAll("tag"),
    label: text("label"),
    metadata: onePerKey(query.getAll("metadata")),
    hook: text("hook"),
    from: isTime(text("from")) ? text("from") : "",
    to: isTime(text("to")) ? text("to") : "",
    isPinned: query.has("pinned"),
  };
}

/** What is no `key=value` is left out, and of several values of a key the last is meant: the API takes one. */
export function onePerKey(pairs: readonly string[]): string[] {
  const found = new Map(pairs.filter((pair) => pair.indexOf("=") > 0).map((pair) => [pairOf(pair)[0], pair]));
  return [...found.values()];
}

type Conditions = Omit<NonNullable<Query<"listCaches">>, "limit" | "cursor" | "fields" | "order" | "count">;

/** What the API takes. */
export function conditionsOf(filter: CacheFilter): Conditions {
  const { text, model, run, tags, label, metadata, hook, from, to, isPinned } = filter;
  const pairs = metadata.map(pairOf);
  return {
    ...(text.trim() && { text }),
    ...(model && { model }),
    ...(run && { run }),
    ...(tags.length > 0 && { tag: tags }),
    ...(label && { label }),
    ...(pairs.length > 0 && { metadata: Object.fromEntries(pairs) }),
    ...(hook && { hook: [hook] }),
    ...(from && { created_from: new Date(from).toISOString() }),
    ...(to && { created_to: new Date(to).toISOString() }),
    ...(isPinned && { pinned: true }),
  };
}

function isTime(text: string): boolean {
  return text !== "" && !Number.isNaN(Date.parse(text));
}

/** The same caches on the map, whose address calls the words of a text `words`. Undefined where the map lacks a condition. */
export function mapQuery({ text, model, run, tags, label, metadata, hook, from, to, isPinned }: CacheFilter) {
  if (hook || from || to || isPinned) return undefined;
  return { words: text, model, run, label, tag: tags, metadata };
}

/** The conditions that can be taken away one by one, with the query that is left then. */
export function chips(filter: CacheFilter): { text: string; without: Record<string, string[] | null> }[] {
  const one = (name: keyof CacheFilter, shown: string) => ({ text: shown, without: { [name]: null } });
  const { model, run, tags, label, metadata, hook, from, to } = filter;
  return [
    ...(model ? [one("model", `model ${model}`)] : []),
    ...(run ? [one("run", `run ${run.slice(0, 18)}…`)] : []),
    ...tags.map((tag) => ({ text: `tag ${tag}`, without: { tag: tags.filter((other) => other !== tag) } })),
    ...(label ? [one("label", `label ${label}`)] : []),
    ...metadata.map((pair) => ({ text: pair, without: { metadata: metadata.filter((other) => other !== pair) } })),
    ...(hook ? [one("hook", `hook ${hook}`)] : []),
    ...(from ? [one("from", `from ${from}`)] : []),
    ...(to ? [one("to", `to ${to}`)] : []),
    ...(filter.isPinned ? [{ text: "pinned", without: { pinned: null } }] : []),
  ];
}

/** The query string of the conditions, as the specification writes objects. */
export function queryString(conditions: Conditions): string {
  const pairs = new URLSearchParams();
  for (const [name, value] of Object.entries(conditions)) {
    if (Array.isArray(value)) for (const inner of value) pairs.append(name, String(inner));
    else if (typeof value === "object" && value !== null)
      for (const [key, inner] of Object.entries(value)) pairs.append(`${name}[${key}]`, String(inner));
    else pairs.append(name, String(value));
  }
  return pairs.toString();
}

export function pythonFilter(conditions: Conditions): string {
  return Object.entries(conditions)
    .map(
      ([name, value]) => `${name}=${pythonOf(name === "tag" && Array.isArray(value) && value.length === 1 ? value[0] : value)}`,
    )
    .join(", ");
}

export function commandFilter({ text, model, run, tags, label, metadata, hook, from, to, isPinned }: CacheFilter): string {
  return [
    model && `-m ${shellWord(model)}`,
    run && `--run ${run}`,
    ...tags.map((tag) => `--tag ${shellWord(tag)}`),
    label && `--label ${shellWord(label)}`,
    text && `--text ${shellWord(text)}`,
    ...metadata.map((pair) => `--metadata ${shellWord(pair)}`),
    hook && `--hook ${shellWord(hook)}`,
    from && `--from ${new Date(from).toISOString()}`,
    to && `--to ${new Date(to).toISOString()}`,
    isPinned && "--pinned",
  ]
    .filter(Boolean)
    .join(" ");
}
