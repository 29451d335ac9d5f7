/** The list of caches as it is loaded: page after page, as far as the reader scrolls. */
import { type Signal, useSignal } from "@preact/signals";
import { useCallback, useEffect, useRef } from "preact/hooks";
import type { Cache } from "residuum";
import { client } from "../../server/client";
import { epoch } from "../../server/connection";
import type { conditionsOf } from "./filter";

/** What a row shows. */
export type Row = Pick<Cache, "id" | "text" | "model" | "label" | "tags" | "n_tokens" | "created_at" | "pinned">;

const FIELDS = "id,text,model,label,tags,n_tokens,created_at,pinned";
/** Rows of the first page, which is to be there at once, and of the others. */
const FIRST = 100;
const PAGE = 1_000;

export interface List {
  rows: readonly Row[];
  /** How many there are; while `isExact` is false, at least so many: the server stops counting early. */
  total: number | undefined;
  isExact: boolean;
  isLoading: boolean;
  error: unknown;
}

/** The caches that match; `reach` loads until a row is there, `reload` begins anew. */
export function useList(conditions: ReturnType<typeof conditionsOf>): List & {
  reach: (index: number) => void;
  reload: () => void;
} {
  const state: Signal<List> = useSignal<List>({ rows: [], total: undefined, isExact: true, isLoading: true, error: undefined });
  const attempt = useSignal(0);
  const wanted = useRef(0);
  const loading = useRef<(() => void) | null>(null);
  const key = JSON.stringify(conditions);

  useEffect(() => {
    const controller = new AbortController();
    let cursor: string | undefined;
    let isBusy = false;
    let isDone = false;
    const rows: Row[] = [];
    wanted.current = 0;
    state.value = { rows: [], total: undefined, isExact: true, isLoading: true, error: undefined };
    const loadOn = async () => {
      if (isBusy || isDone) return;
      isBusy = true;
      try {
        while (!isDone && (rows.length === 0 || wanted.current >= rows.length - FIRST / 2)) {
          const isFirst = rows.length === 0;
          const query = {
            ...conditions,
            fields: FIELDS,
            limit: isFirst ? FIRST : PAGE,
            ...(cursor && { cursor }),
            ...(isFirst && { count: true }),
          };
          const page = await client.get("/v1/caches", { params: { query }, signal: controller.signal });
          rows.push(...(page.items as Row[]));
          cursor = page.next_cursor ?? undefined;
          isDone = cursor === undefined;
          const counted = isFirst ? page.total : state.peek().total;
          // A page more than is known, so that the list can be scrolled on.
          const isExact = isDone || (isFirst ? page.total_is_exact !== false : state.peek().isExact);
          const total = isDone ? rows.length : isExact ? (counted ?? undefined) : Math.max(counted ?? 0, rows.length + PAGE);
          // The same array: a copy of 100,000 rows for each page would be felt.
          state.value = { rows, total, isExact, isLoading: !isDone, error: undefined };
        }
      } catch (error) {
        if (!controller.signal.aborted) state.value = { ...state.peek(), isLoading: false, error };
      } finally {
        isBusy = false;
      }
    };
    loading.current = () => void loadOn();
    // A word that is being typed is not searched for letter by letter.
    const timer = setTimeout(loading.current, 120);
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
  }, [key, attempt.value, epoch.value]);

  const reach = useCallback((index: number) => {
    wanted.current = Math.max(wanted.current, index);
    loading.current?.();
  }, []);
  const reload = useCallback(() => {
    attempt.value++;
  }, []);
  return { ...state.value, reach, reload };
}
