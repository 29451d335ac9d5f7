/** The head of the pages about one cache: its text, and the way between these pages. */
import type { ComponentChildren } from "preact";
import type { Cache } from "residuum";
import { preview } from "../format/tokens";
import { href, place } from "../router/location";
import { Link } from "../router/link";
import { client } from "../server/client";
import { type Resource, useResource } from "../server/resource";
import { PageHeader } from "./page_header";
import { ProblemNote } from "./problem";

export function useCache(id: string): Resource<Cache> {
  return useResource(`cache ${id}`, (signal) => client.get("/v1/caches/{id}", { params: { path: { id } }, signal }));
}

/** The posted text, or what its tokens say. */
export function textOf(cache: Cache): string {
  return cache.text ?? cache.tokens.join("");
}

const TABS = [
  { path: "", label: "Overview" },
  { path: "/lens", label: "Logit lens" },
  { path: "/attention", label: "Attention" },
] as const;

/** The frame of a page about a cache; `children` gets the cache once it is loaded. */
export function CacheFrame(props: {
  id: string;
  cache: Resource<Cache>;
  actions?: ComponentChildren;
  children: (cache: Cache) => ComponentChildren;
}) {
  const { id, cache, actions, children } = props;
  const { value, error } = cache;
  const path = `/caches/${encodeURIComponent(id)}`;
  return (
    <>
      <PageHeader title={value ? <bdi>{preview(textOf(value), 90) || "Cache"}</bdi> : "Cache"} actions={actions}>
        {value && (
          <>
            {value.model}, {value.n_tokens} tokens{value.label != null && ", "}
            {value.label != null && <bdi>{value.label}</bdi>} · <code>{value.id}</code>
          </>
        )}
      </PageHeader>
      <nav class="tabs" aria-label="Pages of this cache">
        {TABS.map(({ path: tab, label }) => (
          <Link key={tab} to={href(path + tab)} aria-current={place.value.path === path + tab ? "page" : undefined}>
            {label}
          </Link>
        ))}
      </nav>
      {error !== undefined && <ProblemNote error={error} onRetry={cache.reload} />}
      {value ? children(value) : error === undefined && <p class="loading">Loading cache …</p>}
    </>
  );
}

/** The positions whose rows a cache holds, ascending; empty for a mean. */
export function heldPositions({ positions, n_tokens: n }: Pick<Cache, "positions" | "n_tokens">): number[] {
  const all = (start: number, end: number) => Array.from({ length: Math.max(0, end - start) }, (_, i) => start + i);
  const real = (position: number) => (position < 0 ? position + n : position);
  if (positions === "all") return all(0, n);
  if (positions === "last") return n > 0 ? [n - 1] : [];
  if (typeof positions === "number") return [real(positions)];
  if (Array.isArray(positions)) return positions.map(real).sort((a, b) => a - b);
  if (typeof positions === "object" && ("start" in positions || "end" in positions)) {
    return all(real(positions.start ?? 0), positions.end == null ? n : Math.min(n, real(positions.end)));
  }
  return [];
}

/** The layers for which a cache holds a hook, given by its name within a block such as `hook_resid_post`. */
export function heldLayers({ hooks }: Pick<Cache, "hooks">, name: string): number[] {
  const found: number[] = [];
  for (const { hook } of hooks) {
    const layer = /^blocks\.(\d+)\.(.*)$/.exec(hook);
    if (layer?.[2] === name) found.push(Number(layer[1]));
  }
  return found;
}
