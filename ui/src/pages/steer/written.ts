/** A continuation as it is written. */
import { type Signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { CreateRun } from "residuum";
import { client } from "../../server/client";

export interface Written {
  /** Names the request that it belongs to. */
  key: string;
  text: string;
  run?: string;
  cache?: string;
  isDone: boolean;
  error?: unknown;
}

const NOTHING: Written = { key: "", text: "", isDone: false };

/** Runs a moment after the last change of `key`. A run that is no longer wanted is cancelled. */
export function useWritten(key: string | null, body: CreateRun): Written {
  const state: Signal<Written> = useSignal(NOTHING);
  useEffect(() => {
    if (key === null) return undefined;
    const controller = new AbortController();
    let run: string | undefined;
    let hasEnded = false;
    const cancel = (id: string) => void client.post("/v1/runs/{id}/cancel", { params: { path: { id } } }).catch(() => undefined);
    const write = async () => {
      const { signal } = controller;
      state.value = { ...NOTHING, key };
      // Posting is not aborted: the run might be queued already, and only its id can cancel it.
      run = (await client.runs.create(body)).id;
      if (signal.aborted) return cancel(run);
      for await (const event of client.runs.follow(run, { signal })) {
        const now = state.peek();
        if (event.type === "token" || event.type === "completion") state.value = { ...now, text: now.text + event.data.text };
        else if (event.type === "run" && event.data.error) state.value = { ...now, error: new Error(event.data.error.detail) };
      }
      hasEnded = true;
      const ended = await client.get("/v1/runs/{id}", { params: { path: { id: run } }, signal });
      const text = ended.completions?.[0]?.text ?? state.peek().text;
      const cache = ended.caches[0];
      state.value = { ...state.peek(), text, run, isDone: true, ...(cache !== undefined && { cache }) };
    };
    const timer = setTimeout(() => {
      write().catch((error: unknown) => {
        if (!controller.signal.aborted) state.value = { ...state.peek(), error };
      });
    }, 300);
    return () => {
      clearTimeout(timer);
      controller.abort();
      if (run !== undefined && !hasEnded) cancel(run);
    };
  }, [key]);
  return state.value.key === key ? state.value : NOTHING;
}
