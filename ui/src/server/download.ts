/** Saves an answer of the API as a file. A plain link would carry no key. */
import { client } from "./client";

/** Fetches a path with the key and hands it to the browser under a name. Throws as the client does. */
export async function download(path: string, name: string, signal?: AbortSignal): Promise<void> {
  const response = await client.request(path, { signal });
  const url = URL.createObjectURL(await response.blob());
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  // The browser has begun to read it by then.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
