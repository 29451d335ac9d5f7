/** The filter of the list of caches: as the address has it, as the API takes it, as a command. */
import { pairOf } from "../../format/lists";
import { pythonOf, shellWord } from "../../format/snippets";
import { type Conditions, flagsOf, queryOf } from "../../server/conditions";

export interface CacheFilter extends Conditions {
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

/** What the API takes. */
export function conditionsOf(filter: CacheFilter) {
  const { hook, from, to, isPinned } = filter;
  return {
    ...queryOf(filter),
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

export function pythonFilter(conditions: ReturnType<typeof conditionsOf>): string {
  return Object.entries(conditions)
    .map(
      ([name, value]) => `${name}=${pythonOf(name === "tag" && Array.isArray(value) && value.length === 1 ? value[0] : value)}`,
    )
    .join(", ");
}

export function commandFilter(filter: CacheFilter): string {
  const { hook, from, to, isPinned } = filter;
  return [
    ...flagsOf(filter),
    hook && `--hook ${shellWord(hook)}`,
    from && `--from ${new Date(from).toISOString()}`,
    to && `--to ${new Date(to).toISOString()}`,
    isPinned && "--pinned",
  ]
    .filter(Boolean)
    .join(" ");
}
