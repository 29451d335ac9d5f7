/** A run as it goes on: its snapshots, and the text of each continuation as it is written. */
import { type Signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { RunSnapshot } from "residuum";
import { client } from "../../server/client";
import { epoch } from "../../server/connection";

export interface Followed {
  run?: RunSnapshot;
  error?: unknown;
  /** Text written so far, by item. */
  texts: ReadonlyMap<number, string>;
}

/** Follows while the component is shown. Starts anew when the server is back after it was lost. */
export function useFollowed(id: string): Followed {
  const state: Signal<Followed> = useSignal<Followed>({ texts: new Map() });
  useEffect(() => {
    const controller = new AbortController();
    const texts = new Map<number, string>();
    state.value = { texts };
    const follow = async () => {
      for await (const event of client.runs.follow(id, { signal: controller.signal })) {
        if (event.type === "run") state.value = { ...state.peek(), run: event.data };
        else if (event.type === "token" || event.type === "completion") {
          texts.set(event.data.item, (texts.get(event.data.item) ?? "") + event.data.text);
          state.value = { ...state.peek(), texts: new Map(texts) };
        }
      }
    };
    follow().catch((error: unknown) => {
      if (!controller.signal.aborted) state.value = { ...state.peek(), error };
    });
    return () => controller.abort();
  }, [id, epoch.value]);
  return state.value;
}
