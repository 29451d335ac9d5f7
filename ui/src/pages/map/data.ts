/** What the map needs from the server: the caches, and how their vectors stand to each other. */
import { readNpy } from "residuum";
import type { Schemas } from "../../server/catalogue";
import { client } from "../../server/client";
import { forEach } from "../../server/pool";
import { pause } from "../../server/resource";
import { type Conditions, queryOf } from "../../server/conditions";
import { type Components, componentsOf } from "./pca";

/** Caches on one map; the newest are taken if there are more. */
export const MOST_CACHES = 2_000;
const FIELDS = "id,run,model,label,tags,metadata,text,tokens,n_tokens";
const PAGE = 500;
/** So few caches are asked for one by one, rather than through the list. */
const FEW = 8;

export type Item = Pick<Schemas["Cache"], "id" | "run" | "model" | "label" | "tags" | "metadata" | "n_tokens"> & {
  /** Null if the cache has no text, and its tokens neither. */
  text: string | null;
};

export interface Listed {
  items: Item[];
  /** How many the conditions find. */
  total: number;
}

function itemOf(cache: Schemas["Cache"]): Item {
  const { id, run, model, label, tags, metadata, n_tokens } = cache;
  const text = cache.text ?? (cache.tokens.join("") || null);
  return { id, run, model, label: label ?? null, tags, metadata, n_tokens, text };
}

export async function listCaches(ids: readonly string[], conditions: Conditions, signal: AbortSignal): Promise<Listed> {
  if (ids.length > 0) return await namedCaches([...new Set(ids)].slice(0, MOST_CACHES), signal);
  const items: Item[] = [];
  let total = 0;
  for (let cursor: string | undefined; items.length < MOST_CACHES; ) {
    const query = { ...queryOf(conditions), fields: FIELDS, limit: PAGE, ...(cursor ? { cursor } : { count: true }) };
    const page = await client.get("/v1/caches", { params: { query }, signal });
    items.push(...(page.items as Schemas["Cache"][]).map(itemOf));
    total = Math.max(total, page.total ?? 0, items.length);
    cursor = page.next_cursor ?? undefined;
    if (!cursor) break;
  }
  return { items: items.slice(0, MOST_CACHES), total };
}

async function namedCaches(ids: readonly string[], signal: AbortSignal): Promise<Listed> {
  const caches = await forEach(ids, (id) => client.get("/v1/caches/{id}", { params: { path: { id } }, signal }));
  return { items: caches.map(itemOf), total: caches.length };
}

export interface MapRequest {
  /** Caches of one model. */
  ids: readonly string[];
  hook: string;
  /** Undefined for a hook outside the blocks. */
  layer: number | undefined;
  /** The hook's full name at this layer. */
  full: string;
  position: "last" | "mean";
  normalize: boolean;
  /** What the caches were found by: the search for those with the hook stays within it. */
  conditions: Conditions;
}

export interface Mapped extends Components {
  /** The caches that have the hook, in the order of the scores. */
  ids: readonly string[];
}

/** Components that are computed; two of them are shown. */
const COMPONENTS = 4;

/** The body of the request for the centred dot products of these caches. */
export function comparisonOf(caches: readonly string[] | object, request: Omit<MapRequest, "ids" | "full" | "conditions">) {
  const { hook, layer, position, normalize } = request;
  return {
    mode: "matrix" as const,
    caches: caches as string[],
    hook,
    ...(layer !== undefined && { layers: [layer] }),
    position,
    metrics: ["dot" as const],
    center: "mean" as const,
    ...(normalize && { normalize }),
  };
}

/** The dot products are the server's, summed in float64; their principal components are computed here. */
export async function loadMap(request: MapRequest, signal: AbortSignal): Promise<Mapped> {
  const ids = await haveHook(request, signal);
  if (ids.length < 2) return { ids, scores: [], variance: [], share: [] };
  const answer = await client.post("/v1/comparisons", {
    params: { query: { format: "npy" } },
    body: comparisonOf(ids, request),
    parseAs: "arrayBuffer",
    signal,
  });
  const { data } = readNpy(answer);
  const gram = data instanceof Float64Array ? data : Float64Array.from(data as Float32Array);
  return { ids, ...(await componentsOf(gram, ids.length, COMPONENTS, () => pause(0, signal))) };
}

/** Those of the caches that captured the hook at this layer. */
async function haveHook({ ids, full, conditions }: MapRequest, signal: AbortSignal): Promise<string[]> {
  const found = new Set<string>();
  const wanted = new Set(ids);
  if (ids.length <= FEW) {
    for (const id of ids) {
      const { hooks } = await client.get("/v1/caches/{id}", { params: { path: { id } }, signal });
      if (hooks.some(({ hook }) => hook === full)) found.add(id);
    }
    return ids.filter((id) => found.has(id));
  }
  for (let cursor: string | undefined, pages = 0; pages < 200; pages++) {
    const query = { ...queryOf(conditions), hook: [full], fields: "id", limit: 1000, ...(cursor && { cursor }) };
    const page = await client.get("/v1/caches", { params: { query }, signal });
    for (const { id } of page.items) if (wanted.has(id)) found.add(id);
    cursor = page.next_cursor ?? undefined;
    if (!cursor || found.size === wanted.size) break;
  }
  return ids.filter((id) => found.has(id));
}
