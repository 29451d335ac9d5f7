/** Conditions that the API knows for caches, as views keep them in the address. */
import { pairOf } from "../format/lists";
import { shellWord } from "../format/snippets";
import { queryList, queryText } from "../router/location";

export interface Conditions {
  model: string;
  run: string;
  label: string;
  tags: readonly string[];
  /** Words and quoted phrases that the text contains. */
  text: string;
  /** Each `key=value`; the value is JSON, or else text. */
  metadata: readonly string[];
}

export const NO_CONDITIONS: Conditions = { model: "", run: "", label: "", tags: [], text: "", metadata: [] };

export function readConditions(): Conditions {
  return {
    model: queryText("model"),
    run: queryText("run"),
    label: queryText("label"),
    tags: queryList("tag"),
    text: queryText("words"),
    metadata: queryList("metadata").filter((pair) => pair.includes("=")),
  };
}

/** For the query of `GET /v1/caches`. */
export function queryOf({ model, run, label, tags, text, metadata }: Conditions) {
  return {
    ...(model && { model }),
    ...(run && { run }),
    ...(label && { label }),
    ...(tags.length > 0 && { tag: [...tags] }),
    ...(text.trim() && { text }),
    ...(metadata.length > 0 && { metadata: Object.fromEntries(metadata.map(pairOf)) }),
  };
}

/** For bodies, which take conditions as an object. */
export function bodyOf({ model, run, label, tags, text, metadata }: Conditions) {
  return {
    ...(model && { model }),
    ...(run && { run }),
    ...(label && { label }),
    ...(tags.length > 0 && { tags: [...tags] }),
    ...(text.trim() && { text }),
    ...(metadata.length > 0 && {
      metadata: Object.fromEntries(metadata.map(pairOf).map(([key, value]) => [key, jsonOr(value)])),
    }),
  };
}

/** For the command line. */
export function flagsOf({ model, run, label, tags, text, metadata }: Conditions): string[] {
  const flag = (name: string, value: string) => (value ? [`--${name} ${shellWord(value)}`] : []);
  return [
    ...(model ? [`-m ${shellWord(model)}`] : []),
    ...flag("run", run),
    ...flag("label", label),
    ...tags.flatMap((tag) => flag("tag", tag)),
    ...flag("text", text),
    ...metadata.flatMap((pair) => flag("metadata", pair)),
  ];
}

function jsonOr(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}
