/** Saves an answer of the API as a file. */
import { client } from "./client";
import { apiKey } from "./key";

/**
 * Asks for a path, and hands the answer to the browser: as it comes, or through memory where a key is needed, which no address can
 * carry. Throws as the client does if the server refuses.
 */
export async function download(path: string, name?: string, signal?: AbortSignal): Promise<void> {
  const response = await client.request(path, { signal });
  if (apiKey.peek() === "") {
    // The browser saves it as it comes, and shows how far it is.
    await response.body?.cancel();
    location.assign(path);
    return;
  }
  const url = URL.createObjectURL(await response.blob());
  const link = document.createElement("a");
  link.href = url;
  link.download = name ?? fileName(response.headers.get("content-disposition")) ?? "download";
  link.click();
  // The browser has begun to read it by then.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** The name that a Content-Disposition header gives a file. */
export function fileName(header: string | null): string | undefined {
  return /filename="([^"]+)"/.exec(header ?? "")?.[1];
}
