/** What is asked for again and again while the page is in sight. */
import { useSignal } from "@preact/signals";
import { useCallback, useEffect, useRef } from "preact/hooks";
import { ConnectionError, ResiduumError } from "residuum";
import { epoch } from "../../server/connection";

export interface Polled<Value> {
  /** The last value; kept while the next one is fetched, so nothing flickers. */
  readonly value: Value | undefined;
  /** Why the last attempt failed; undefined after one that succeeded. */
  readonly error: unknown;
  /** Asks now. */
  readonly reload: () => void;
}

/** Milliseconds between an answer and the next question. */
const PERIOD = 3_000;

/**
 * A hidden tab asks nothing, and asks at once when it is seen again. A refusal (401, 403) ends the asking until the key changes, a
 * lost server until it is back: both change `epoch`.
 */
export function usePolled<Value>(load: (signal: AbortSignal) => Promise<Value>, period = PERIOD): Polled<Value> {
  const state = useSignal<{ value?: Value; error?: unknown }>({});
  const attempt = useSignal(0);
  const latest = useRef(load);
  latest.current = load;
  useEffect(() => {
    const controller = new AbortController();
    const { signal } = controller;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let isAsking = false;
    let isOver = false;
    const ask = async () => {
      clearTimeout(timer);
      if (isAsking || isOver || document.hidden) return;
      isAsking = true;
      try {
        const value = await latest.current(signal);
        if (!signal.aborted) state.value = { value };
      } catch (error) {
        if (!signal.aborted) state.value = { ...state.peek(), error };
        isOver = isFinal(error);
      }
      isAsking = false;
      if (!signal.aborted && !isOver) timer = setTimeout(() => void ask(), period);
    };
    const onVisible = () => void ask();
    document.addEventListener("visibilitychange", onVisible);
    void ask();
    return () => {
      document.removeEventListener("visibilitychange", onVisible);
      clearTimeout(timer);
      controller.abort();
    };
  }, [epoch.value, attempt.value, period]);
  const reload = useCallback(() => {
    attempt.value++;
  }, []);
  return { value: state.value.value, error: state.value.error, reload };
}

function isFinal(error: unknown): boolean {
  if (error instanceof ConnectionError) return true;
  return error instanceof ResiduumError && (error.status === 401 || error.status === 403);
}
