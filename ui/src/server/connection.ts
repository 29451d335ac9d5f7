/** Whether the server answers. A lost one is asked every two seconds until it is back. */
import { signal } from "@preact/signals";

/** `up` until a request gets no answer. */
export const connection = signal<"up" | "lost">("up");
/** Counts how often the connection came back or the key changed: whatever was loaded in vain is loaded again. */
export const epoch = signal(0);

const PERIOD = 2_000;
let timer: ReturnType<typeof setTimeout> | undefined;

/** Reports that a request got no answer. */
export function lost(): void {
  connection.value = "lost";
  timer ??= setTimeout(askAgain, PERIOD);
}

/** Reports that the server answered. */
export function answered(): void {
  if (connection.value === "up") return;
  clearTimeout(timer);
  timer = undefined;
  connection.value = "up";
  epoch.value++;
}

/** Asks now rather than in two seconds. */
export async function askAgain(): Promise<void> {
  clearTimeout(timer);
  timer = undefined;
  try {
    const response = await fetch("/healthz", { cache: "no-store" });
    // A proxy answers for a server that is gone.
    if (response.status >= 500) throw new Error(String(response.status));
    answered();
  } catch {
    lost();
  }
}
