/** The API key, kept for this tab alone: in sessionStorage, never in an address. */
import { signal } from "@preact/signals";

const NAME = "residuum-key";

function stored(): string {
  try {
    return sessionStorage.getItem(NAME) ?? "";
  } catch {
    // Storage may be forbidden; the key then lives as long as the page.
    return "";
  }
}

/** The key in use; empty for none. */
export const apiKey = signal(stored());

/** Whether the server refused a request for want of a valid key (401). The shell then asks for one. */
export const keyWanted = signal(false);

export function setKey(key: string): void {
  apiKey.value = key;
  keyWanted.value = false;
  try {
    if (key) sessionStorage.setItem(NAME, key);
    else sessionStorage.removeItem(NAME);
  } catch {
    // As above.
  }
}
