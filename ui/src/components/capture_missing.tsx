/** Captures what a page needs and a cache lacks: the same tokens once more, with these hooks, and on to the new cache. */
import type { Cache, CreateRun } from "residuum";
import { go, href, place } from "../router/location";
import { client } from "../server/client";
import { useAction } from "../server/resource";
import { ProblemNote } from "./problem";

/** The run that captures hooks of the same tokens with the same interventions, at all positions. */
export function runAgain(cache: Cache, hooks: string[], layers: number[] | "all"): CreateRun {
  return {
    model: cache.model,
    items: [{ token_ids: cache.token_ids, ...(cache.label != null && { label: cache.label }) }],
    capture: { hooks, layers, positions: "all" },
    tags: cache.tags,
    metadata: cache.metadata,
    priority: "interactive",
    ...(cache.provenance.interventions.length > 0 && {
      interventions: cache.provenance.interventions as NonNullable<CreateRun["interventions"]>,
    }),
  };
}

export function CaptureMissing(props: { cache: Cache; hooks: string[]; layers?: number[] | "all"; children: string }) {
  const { cache, hooks, layers = "all", children } = props;
  const act = useAction(async (signal) => {
    const run = await client.run(runAgain(cache, hooks, layers), { signal });
    // The same view of the new cache.
    const { path, query } = place.peek();
    const view = /^\/caches\/[^/]+(.*)$/.exec(path)?.[1] ?? "";
    go(href(`/caches/${run.caches[0]}${view}`, Object.fromEntries(query)));
  });
  if (cache.token_ids.length === 0) return null;
  return (
    <>
      <button type="button" class="primary" disabled={act.isRunning} onClick={() => void act.run()}>
        {act.isRunning ? "Capturing …" : children}
      </button>
      {act.error !== undefined && <ProblemNote error={act.error} />}
    </>
  );
}
