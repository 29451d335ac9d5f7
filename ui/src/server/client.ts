/** The client of the server that the page came from. */
import { createClient } from "residuum";
import { answered, lost } from "./connection";
import { apiKey, keyWanted } from "./key";

/** Every request goes through here: it tells whether the server answers, and whether it wants a key. */
async function observedFetch(url: string, init?: RequestInit): Promise<Response> {
  try {
    const response = await fetch(url, init);
    if (response.status === 401) keyWanted.value = true;
    answered();
    return response;
  } catch (error) {
    if (!init?.signal?.aborted) lost();
    throw error;
  }
}

/**
 * Typed by openapi.yaml: `client.get("/v1/caches/{id}", { params: { path: { id } }, signal })`. Throws `ResiduumError` and
 * `ConnectionError`. What fails is not sent again by itself: the page shows the problem, and loads again when the server is back.
 */
export const client = createClient({
  baseUrl: typeof location === "undefined" ? "http://127.0.0.1:8080" : location.origin,
  apiKey: () => apiKey.peek() || undefined,
  fetch: observedFetch,
  retries: 0,
});
