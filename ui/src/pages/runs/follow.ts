/** A run as it goes on: its snapshots, and the text of each continuation as it is written. */
import { type Signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { ConnectionError, type RunEvent, type RunSnapshot } from "residuum";
import { client } from "../../server/client";
import { epoch } from "../../server/connection";
import { type Failure, isFinal } from "./progress";

export interface Followed {
  run?: RunSnapshot;
  error?: unknown;
  /** Text written so far, by item. */
  texts: ReadonlyMap<number, string>;
  /** Continuations that failed, by item. */
  failures: ReadonlyMap<number, Failure>;
  /** Number of tokens that came before this page listened, or were lost. */
  nMissed: number;
}

const NOTHING: Followed = { texts: new Map(), failures: new Map(), nMissed: 0 };
/** Milliseconds until a stream that broke off is asked for again. */
const PAUSE = 2_000;

/** What is known after a further event. */
export function after(state: Followed, event: RunEvent): Followed {
  if (event.type === "run") return { ...state, run: event.data };
  if (event.type === "missed") return { ...state, nMissed: state.nMissed + event.data.count };
  const { item, text } = event.data;
  const texts = new Map(state.texts).set(item, (state.texts.get(item) ?? "") + text);
  if (event.type === "token" || !event.data.error) return { ...state, texts };
  return { ...state, texts, failures: new Map(state.failures).set(item, event.data.error) };
}

/** Follows while the component is shown. Starts anew after the connection was lost; what was known stays until then. */
export function useFollowed(id: string): Followed {
  const state: Signal<Followed> = useSignal<Followed>(NOTHING);
  useEffect(() => {
    const controller = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const follow = async () => {
      const { run } = state.peek();
      state.value = { ...NOTHING, ...(run?.id === id && { run }) };
      for await (const event of client.runs.follow(id, { signal: controller.signal })) state.value = after(state.peek(), event);
    };
    const start = () => {
      follow().catch((error: unknown) => {
        if (controller.signal.aborted) return;
        const { run } = state.peek();
        const mayGoOn = error instanceof ConnectionError && !(run && isFinal(run));
        if (mayGoOn) timer = setTimeout(start, PAUSE);
        else state.value = { ...state.peek(), error };
      });
    };
    start();
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
  }, [id, epoch.value]);
  return state.value;
}
