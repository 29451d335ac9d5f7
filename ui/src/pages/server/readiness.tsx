/** Whether the server takes work, and what its operator should look at. */
import { ResiduumError } from "residuum";
import { client } from "../../server/client";
import type { Polled } from "./polled";

export interface Readiness {
  isReady: boolean;
  version?: string | undefined;
  notes: readonly string[];
  /** Why it is not ready. */
  detail?: string | undefined;
}

/** `/readyz`; its 503 is an answer, not a failure. */
export async function askReadiness(signal: AbortSignal): Promise<Readiness> {
  try {
    const { version, notes } = await client.get("/readyz", { signal });
    return { isReady: true, version, notes };
  } catch (error) {
    if (!(error instanceof ResiduumError) || error.status !== 503) throw error;
    const { version } = await client.get("/", { signal });
    return { isReady: false, version, notes: [], detail: error.detail };
  }
}

export function ReadinessNote({ of: polled }: { of: Polled<Readiness> }) {
  const now = polled.value;
  if (!now) return <p class="loading">Asking whether it is ready …</p>;
  return (
    <div class={now.isReady ? "card readiness" : "card readiness readiness-bad"} role="status">
      <strong class={`status ${now.isReady ? "status-ready" : "status-failed"}`}>{now.isReady ? "Ready" : "Not ready"}</strong>
      <span class="soft">{now.isReady ? "All models of its flags are loaded, and the store accepts changes." : now.detail}</span>
      {now.notes.length > 0 && (
        <ul>
          {now.notes.map((note) => (
            <li key={note}>{note}</li>
          ))}
        </ul>
      )}
    </div>
  );
}
