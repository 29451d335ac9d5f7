/** A button that saves a file of the API. A refusal is shown rather than saved. */
import type { ComponentChildren } from "preact";
import { apiKey } from "../server/key";
import { download } from "../server/download";
import { useAction } from "../server/resource";
import { ProblemNote } from "./problem";

export function Download({ path, children }: { path: string; children: ComponentChildren }) {
  const act = useAction((signal) => download(path, undefined, signal));
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
