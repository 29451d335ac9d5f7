/** How far a load has come, in words. */
import { bytes } from "../../format/numbers";
import type { Schemas } from "../../server/catalogue";

const STAGES: Record<Schemas["LoadStageName"], string> = {
  queued: "Waits for another load",
  downloading: "Downloads",
  reading: "Reads the files",
  weights: "Reads the weights",
  placing: "Places the weights on the device",
  ready: "Ready",
};

/** `part` of the stage is 0 to 1; undefined if its length is not known. */
export function stageText(progress: Schemas["LoadProgress"]): { part: number | undefined; text: string } {
  const { stage, bytes_done: done, bytes_total: total } = progress;
  const name = STAGES[stage] ?? stage;
  if (total <= 0) return { part: undefined, text: done > 0 ? `${name}: ${bytes(done)}` : name };
  const part = Math.min(1, done / total);
  return { part, text: `${name}: ${bytes(done)} of ${bytes(total)}` };
}
