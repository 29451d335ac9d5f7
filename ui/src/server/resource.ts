/** Data from the server that a component shows: loading, ready or failed. */
import { type Signal, useSignal } from "@preact/signals";
import { useCallback, useEffect, useRef } from "preact/hooks";
import { epoch } from "./connection";

export interface Resource<Value> {
  /** The last value that was loaded. Kept while it is loaded again and if that fails, but not for another key. */
  readonly value: Value | undefined;
  /** Why loading failed; undefined while it goes on or succeeded. */
  readonly error: unknown;
  readonly isLoading: boolean;
  /** Loads again. */
  readonly reload: () => void;
  /** Changes the value here, after a change on the server that is known to have the same effect. */
  readonly set: (value: Value) => void;
}

interface State<Value> {
  key: string | null;
  value?: Value | undefined;
  error?: unknown;
  isLoading: boolean;
}

/**
 * Loads when the component is shown, when `key` changes, and when the server is back after it was lost. An answer that comes
 * after the key has changed is dropped, and its request aborted. `key` names what is loaded; null for nothing.
 */
export function useResource<Value>(key: string | null, load: (signal: AbortSignal) => Promise<Value>): Resource<Value> {
  const state: Signal<State<Value>> = useSignal<State<Value>>({ key, isLoading: key !== null });
  const attempt = useSignal(0);
  const latest = useRef(load);
  latest.current = load;

  useEffect(() => {
    if (key === null) {
      state.value = { key, isLoading: false };
      return undefined;
    }
    const controller = new AbortController();
    const before = state.peek();
    state.value = { key, value: before.key === key ? before.value : undefined, isLoading: true };
    latest.current(controller.signal).then(
      (value) => {
        if (!controller.signal.aborted) state.value = { key, value, isLoading: false };
      },
      (error: unknown) => {
        if (!controller.signal.aborted) state.value = { key, value: state.peek().value, error, isLoading: false };
      },
    );
    return () => controller.abort();
  }, [key, attempt.value, epoch.value]);

  const reload = useCallback(() => {
    attempt.value++;
  }, []);
  const set = useCallback(
    (value: Value) => {
      state.value = { key, value, isLoading: false };
    },
    [key],
  );
  const now = state.value;
  // Until the effect has run, the state is that of the key before.
  if (now.key !== key) return { value: undefined, error: undefined, isLoading: key !== null, reload, set };
  return { value: now.value, error: now.error, isLoading: now.isLoading, reload, set };
}

/** Waits, and throws if what waits is no longer wanted: a slider or a text that changes on asks nothing of the server. */
export async function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  await new Promise((done) => setTimeout(done, milliseconds));
  signal.throwIfAborted();
}

/** Runs something that the reader asked for: keeps its error, tells whether it runs, and can be stopped. */
export interface Action<Arguments extends unknown[], Value> {
  readonly run: (...given: Arguments) => Promise<Value | undefined>;
  readonly stop: () => void;
  readonly isRunning: boolean;
  readonly error: unknown;
  readonly clear: () => void;
}

export function useAction<Arguments extends unknown[], Value>(
  act: (signal: AbortSignal, ...given: Arguments) => Promise<Value>,
): Action<Arguments, Value> {
  const state = useSignal<{ controller?: AbortController; error?: unknown }>({});
  const latest = useRef(act);
  latest.current = act;
  useEffect(() => () => state.peek().controller?.abort(), []);
  const run = useCallback(async (...given: Arguments) => {
    state.peek().controller?.abort();
    const controller = new AbortController();
    state.value = { controller };
    try {
      const value = await latest.current(controller.signal, ...given);
      if (state.peek().controller === controller) state.value = {};
      return value;
    } catch (error) {
      if (state.peek().controller === controller) state.value = controller.signal.aborted ? {} : { error };
      return undefined;
    }
  }, []);
  const stop = useCallback(() => state.peek().controller?.abort(), []);
  const clear = useCallback(() => {
    if (!state.peek().controller) state.value = {};
  }, []);
  return { run, stop, clear, isRunning: state.value.controller !== undefined, error: state.value.error };
}
