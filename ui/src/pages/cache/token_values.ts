/** The value that colours each token: fetched and computed for the chosen measure. */
import type { Cache } from "residuum";
import { client } from "../../server/client";
import { type Resource, useResource } from "../../server/resource";
import { flatNumbers } from "../../format/nested";
import { cosines, norms, type Rows, spread } from "./rows";

export type Measure = "norm" | "similarity" | "projection" | "feature";

export interface TokenMeasure {
  measure: Measure;
  /** Full name of the hook, such as `blocks.12.hook_resid_post`. */
  hook: string;
  layer: number;
  /** The token that others are compared with. */
  token: number;
  direction: string;
  sae: string;
  feature: number | null;
}

/** Values of all tokens, NaN where there is none. */
export function useTokenValues(cache: Cache, held: number[], what: TokenMeasure): Resource<Float64Array> {
  const { measure, hook, direction, sae, feature } = what;
  const rows = useResource(measure === "norm" || measure === "similarity" ? `${cache.id} ${hook}` : null, (signal) =>
    rowsOf(cache, held, hook, signal),
  );
  const asked = useResource(askKey(cache, what), async (signal) => {
    const values = await (measure === "projection"
      ? project(cache, hook, direction, signal)
      : activations(cache, sae, feature as number, signal));
    return values instanceof Map
      ? Float64Array.from({ length: cache.n_tokens }, (_, i) => values.get(i) ?? Number.NaN)
      : spread(values, held, cache.n_tokens);
  });
  if (measure === "projection" || measure === "feature") return asked;
  const found = rows.value;
  const value =
    found && measure === "norm"
      ? spread(norms(found), held, cache.n_tokens)
      : found && spread(cosines(found, Math.max(0, held.indexOf(what.token))), held, cache.n_tokens);
  return { ...rows, value, set: () => undefined };
}

function askKey(cache: Cache, { measure, hook, direction, sae, feature }: TokenMeasure): string | null {
  if (measure === "projection" && direction) return `${cache.id} ${hook} on ${direction}`;
  if (measure === "feature" && sae && feature !== null) return `${cache.id} ${sae} ${feature}`;
  return null;
}

async function rowsOf(cache: Cache, held: number[], hook: string, signal: AbortSignal): Promise<Rows> {
  const tensor = await client.tensor(cache.id, hook, { signal });
  const n = Math.max(1, held.length);
  return { n, width: tensor.size / n, data: tensor.data };
}

async function project(cache: Cache, hook: string, direction: string, signal: AbortSignal): Promise<number[]> {
  const body = {
    caches: [cache.id],
    hook,
    positions: cache.positions,
    directions: [{ direction }],
    measures: ["scalar" as const],
  };
  const { values } = await client.post("/v1/projections", { body, signal });
  return flatNumbers(values[0]?.scalar);
}

async function activations(cache: Cache, sae: string, feature: number, signal: AbortSignal): Promise<Map<number, number>> {
  const body = { sae, features: [feature], top_k: 1, allow_bos_mismatch: true };
  const { positions } = await client.post("/v1/caches/{id}/features", { params: { path: { id: cache.id } }, body, signal });
  return new Map(positions.map(({ position, chosen }) => [position, chosen[0] ?? Number.NaN]));
}
