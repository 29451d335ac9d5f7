/** A search as it stands in the address, and as the request, the command and the Python that do the same. */
import { pythonArguments, pythonClient, pythonOf, shellWord } from "../../format/snippets";
import { queryChoice, queryInteger, queryText } from "../../router/location";
import type { Schemas } from "../../server/catalogue";
import { bodyOf, type Conditions, flagsOf, readConditions } from "../../server/conditions";

export const SOURCES = ["text", "cache", "direction"] as const;
export type Source = (typeof SOURCES)[number];

export interface SearchView {
  by: Source;
  /** The text, the id of the cache, or the name of the direction. */
  what: string;
  metric: Schemas["SearchMetric"];
  over: Schemas["SearchOver"];
  /** Which position stands for a text or a cache; `usual` is the server's choice. */
  position: "usual" | "last" | "mean";
  k: number;
  hook: string;
  /** Undefined: not chosen. */
  layer: number | undefined;
  /** Its model is that of the address; empty if none was chosen. */
  conditions: Conditions;
}

export const COUNTS = [10, 25, 50, 100] as const;
/** Tokens on either side of a hit. */
const CONTEXT = 14;

export function readView(): SearchView {
  const by = SOURCES.find((source) => queryText(source) !== "") ?? queryChoice("by", SOURCES);
  const layer = queryInteger("layer", -1);
  const k = queryInteger("k", COUNTS[0]);
  return {
    by,
    what: queryText(by),
    metric: queryChoice("metric", ["cosine", "dot", "euclidean"]),
    over: queryChoice("over", ["caches", "positions"]),
    position: queryChoice("position", ["usual", "last", "mean"]),
    k: Math.min(1000, Math.max(1, k)),
    hook: queryText("hook"),
    layer: layer >= 0 ? layer : undefined,
    conditions: readConditions(),
  };
}

/** A view with the hook, the layer and the model that are searched. */
export interface SearchPlan extends SearchView {
  model: string;
}

export function requestOf(plan: SearchPlan): Schemas["Search"] {
  const { by, what, metric, over, position, k, hook, layer, model, conditions } = plan;
  const at = position === "usual" ? {} : { position };
  const query = by === "text" ? { text: what, model, ...at } : by === "cache" ? { cache: what, ...at } : { direction: what };
  return {
    query,
    hook,
    ...(layer !== undefined && { layer }),
    metric,
    over,
    k,
    context: CONTEXT,
    filter: bodyOf({ ...conditions, model }),
    ...(over === "caches" && at),
    ...(by === "cache" && { exclude_self: true }),
  };
}

export function commandOf(plan: SearchPlan): string {
  const { by, what, metric, over, position, k, hook, layer, model, conditions } = plan;
  const parts = ["residuum search", by === "text" ? shellWord(what) : `--${by} ${shellWord(what)}`];
  if (hook !== "resid_post") parts.push(`--hook ${shellWord(hook)}`);
  if (layer !== undefined) parts.push(`-l ${layer}`);
  if (metric !== "cosine") parts.push(`--metric ${metric}`);
  if (over !== "caches") parts.push(`--over ${over}`);
  else if (position !== "usual") parts.push(`--position ${position}`);
  parts.push(`-k ${k}`, ...flagsOf({ ...conditions, model }));
  return parts.join(" ");
}

export function pythonCode(plan: SearchPlan, origin: string): string {
  const { by, what, metric, over, position, k, hook, layer, model, conditions } = plan;
  const at = position === "usual" ? undefined : position;
  const query = by === "text" ? what : by === "cache" ? { cache: what, position: at } : { direction: what };
  const given = pythonArguments({
    model: by === "text" ? model : undefined,
    layer,
    hook: hook === "resid_post" ? undefined : hook,
    metric: metric === "cosine" ? undefined : metric,
    over: over === "caches" ? undefined : over,
    position: over === "caches" ? at : undefined,
    k,
    filter: bodyOf({ ...conditions, model }),
    exclude_self: by === "cache" || undefined,
  });
  return `${pythonClient(origin)}\nfound = client.search(${pythonOf(query)}, ${given})`;
}

/** What the score means, and which scores come first. */
export const METRICS: Record<Schemas["SearchMetric"], { label: string; meaning: string }> = {
  cosine: { label: "Cosine", meaning: "cosine of the angle, 1 for the same direction; largest first" },
  dot: { label: "Dot product", meaning: "dot product, in squared units of the activations; largest first" },
  euclidean: { label: "Distance", meaning: "Euclidean distance, in units of the activations; smallest first" },
};

/** A context as the text before the hit, the hit, and the text after it. */
export function partsOf(context: Schemas["HitContext"]): { before: string; hit: string; after: string; isStart: boolean } {
  const { tokens, hit, start } = context;
  return {
    before: tokens.slice(0, hit).join(""),
    hit: tokens[hit] ?? "",
    after: tokens.slice(hit + 1).join(""),
    isStart: start === 0,
  };
}
