/** A button that saves a file of the API. A refusal is shown rather than saved. */
import type { ComponentChildren } from "preact";
import { apiKey } from "../server/key";
import { client } from "../server/client";
import { useAction } from "../server/resource";
import { ProblemNote } from "./problem";

export function Download({ path, children }: { path: string; children: ComponentChildren }) {
    const act = useAction(async (signal) => {
        const response = await client.request(path, { signal });
        if (apiKey.peek() === "") {
            // The browser saves it as it comes, and shows how far it is.
            await response.body?.cancel();
            location.assign(path);
            return;
        }
        // An address cannot carry the key, so the file goes through memory.
        const url = URL.createObjectURL(await response.blob());
        const link = document.createElement("a");
        link.href = url;
        link.download = fileName(response.headers.get("content-disposition")) ?? "download";
        link.click();
        setTimeout(() => URL.revokeObjectURL(url), 60_000);
    });
    return (
        <>
            <button type="button" disabled={act.isRunning} onClick={() => void act.run()}>
                {act.isRunning ? "Preparing …" : children}
            </button>
            {act.isRunning && apiKey.value !== "" && (
                <button type="button" class="quiet" onClick={act.stop}>
                    Stop
                </button>
            )}
            {act.error !== undefined && <ProblemNote error={act.error} />}
        </>
    );
}

/** The name that a Content-Disposition header gives a file. */
export function fileName(header: string | null): string | undefined {
    return /filename="([^"]+)"/.exec(header ?? "")?.[1];
}
