/** The caches of a run with what was generated and what comes next, and the inputs that failed. */
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { Cache, Run } from "residuum";
import { Empty, ProblemNote } from "../../components/problem";
import { count, counted, percent } from "../../format/numbers";
import { preview, visible } from "../../format/tokens";
import { href } from "../../router/location";
import { Link } from "../../router/link";
import { client } from "../../server/client";
import { type Resource, useResource } from "../../server/resource";
import { type Failure, failedItems, isFinal } from "./progress";

/** Caches on a page of the API's list. */
const PAGE = 100;
const MORE = 400;
/** Milliseconds between two looks at the list of a run that goes on. */
const PERIOD = 2_000;

export interface ListedCaches {
  found: Cache[];
  hasMore: boolean;
}

export interface CacheList extends Resource<ListedCaches> {
  showMore: () => void;
}

/** The caches that are there so far, asked for again every two seconds while inputs are done, and at the end. */
export function useRunCaches(run: Run | undefined): CacheList {
  const shown = useSignal(PAGE);
  const seen = useSignal(-1);
  const nDone = run?.n_done ?? 0;
  const hasEnded = run !== undefined && isFinal(run);
  useEffect(() => {
    if (hasEnded || seen.peek() < 0) {
      seen.value = nDone;
      return undefined;
    }
    if (seen.peek() === nDone) return undefined;
    const timer = setInterval(() => {
      seen.value = nDone;
    }, PERIOD);
    return () => clearInterval(timer);
  }, [nDone, hasEnded]);
  const key = run && nDone > 0 ? `caches of ${run.id} ${seen.value} ${hasEnded} ${shown.value}` : null;
  const caches = useResource(key, (signal) => load(run?.id ?? "", shown.peek(), signal));
  const last = useRef<{ id: string; value: ListedCaches } | undefined>(undefined);
  if (run && caches.value) last.current = { id: run.id, value: caches.value };
  const value = caches.value ?? (last.current?.id === run?.id ? last.current?.value : undefined);
  return {
    ...caches,
    value,
    showMore: () => {
      shown.value += MORE;
    },
  };
}

async function load(id: string, atLeast: number, signal: AbortSignal): Promise<ListedCaches> {
  const found: Cache[] = [];
  let cursor: string | undefined;
  do {
    const query = { limit: PAGE, include: ["top_tokens" as const], top_k: 3, ...(cursor && { cursor }) };
    const page = await client.get("/v1/runs/{id}/caches", { params: { path: { id }, query }, signal });
    found.push(...page.items);
    cursor = page.next_cursor ?? undefined;
  } while (cursor && found.length < atLeast);
  return { found, hasMore: cursor !== undefined };
}

export function RunCaches({ run, list }: { run: Run; list: CacheList }) {
  if (run.n_done === 0) return isFinal(run) ? <Empty title="No input of this run was stored" /> : null;
  const { value, error } = list;
  return (
    <section class="card" aria-labelledby="run-caches">
      <div class="row run-caches-head">
        <h2 id="run-caches">Caches</h2>
        <span class="spacer" />
        <Link to={href("/caches", { run: run.id })}>Select among them</Link>
      </div>
      {error !== undefined && <ProblemNote error={error} onRetry={list.reload} />}
      {!value && error === undefined && <p class="loading">Loading caches …</p>}
      {value && (
        <>
          <ul class="run-caches">
            {value.found.map((cache) => (
              <CacheItem key={cache.id} cache={cache} />
            ))}
          </ul>
          {value.hasMore && (
            <div class="row">
              <button type="button" onClick={list.showMore}>
                Show more
              </button>
              <span class="soft">
                {count(value.found.length)} of {counted(run.n_done, "cache")}
              </span>
            </div>
          )}
          {isFinal(run) && !value.hasMore && value.found.length < run.n_done && (
            <p class="soft">{counted(run.n_done - value.found.length, "cache")} of this run were deleted or have expired.</p>
          )}
        </>
      )}
    </section>
  );
}

function CacheItem({ cache }: { cache: Cache }) {
  const { completion, text, top_tokens: next, item_index: item } = cache;
  return (
    <li>
      <span class="soft run-item" title={`Input ${item}`}>
        {item}
      </span>
      <div>
        <Link to={href(`/caches/${cache.id}`)}>
          <bdi>{preview(text ?? cache.tokens.join(""), 160) || "An input without text"}</bdi>
        </Link>{" "}
        {cache.label != null && (
          <span class="tag">
            <bdi>{cache.label}</bdi>
          </span>
        )}{" "}
        {cache.reused && <span class="tag">from the store</span>}
        {completion && (
          <p class="written" dir="auto">
            {completion.text}
            <span class="soft"> ({completion.finish_reason})</span>
          </p>
        )}
        {next && next.tokens.length > 0 && (
          <p class="soft">
            Next:{" "}
            {next.tokens.map(({ id, token, probability }) => (
              <span key={id} class="next-token">
                <code>
                  <bdi>{visible(token)}</bdi>
                </code>{" "}
                {percent(probability)}
              </span>
            ))}
          </p>
        )}
      </div>
    </li>
  );
}

/** Inputs without a cache because they failed, each with its problem where the server tells it. */
export function FailedInputs(props: { run: Run; known: ReadonlyMap<number, Failure>; list: CacheList }) {
  const { run, known, list } = props;
  if (run.n_failed === 0 && known.size === 0) return null;
  const stored = new Set(list.value?.found.map(({ item_index: item }) => item));
  const isComplete = run.n_done === 0 || (list.value !== undefined && !list.value.hasMore);
  const failed = failedItems(run, known, stored, isComplete);
  return (
    <section class="problem run-failed" aria-labelledby="run-failed">
      <h2 id="run-failed">{counted(Math.max(run.n_failed, failed.length), "input")} failed</h2>
      {failed.length === 0 && run.error && (
        <p>
          The first: <code>{run.error.code}</code> {run.error.detail}
        </p>
      )}
      <ul>
        {failed.slice(0, PAGE).map(({ item, failure }) => (
          <li key={item}>
            Input {item}
            {failure && (
              <>
                : <code>{failure.code}</code> {failure.detail}
              </>
            )}
          </li>
        ))}
      </ul>
      {failed.length > PAGE && <p>And {counted(failed.length - PAGE, "further input")}.</p>}
    </section>
  );
}
