/** How far a run is, in words. */
import type { Run, RunSnapshot } from "residuum";
import { count, counted, significant } from "../../format/numbers";
import { duration } from "../../format/time";

export function isFinal({ status }: Pick<Run, "status">): boolean {
  return status === "completed" || status === "failed" || status === "cancelled";
}

export function progressOf(run: Run): { part: number; words: string } {
  const { n_items: n, n_done: done, n_failed: failed, n_reused: reused, queue_position: position } = run;
  const words = [`${count(done)} of ${counted(n, "input")}`];
  if (failed > 0) words.push(`${count(failed)} failed`);
  if (reused > 0) words.push(`${count(reused)} from the store`);
  if (run.status === "queued" && position != null) {
    words.push(position === 0 ? "next in the queue" : `${counted(position, "run")} ahead`);
  }
  return { part: n === 0 ? 0 : (done + failed) / n, words: words.join(", ") };
}

/** Speed and time left of a run that is followed; empty where nothing is known. */
export function speedOf({ tokens_per_second: speed, eta_seconds: left }: RunSnapshot): string {
  const words: string[] = [];
  if (speed > 0) words.push(`${significant(speed, 3)} tokens/s`);
  if (left != null) words.push(left < 1 ? "less than a second left" : `about ${duration(left)} left`);
  return words.join(", ");
}

/** Why an input failed. */
export interface Failure {
  code: string;
  detail: string;
}

/**
 * The items that failed, ascending, with the reason where it is known. A run tells the problem of the first one; a stream those
 * that failed while it was followed. `stored` are the items with a cache, all of them if `isComplete`: without that, the rest
 * cannot be told from those that are only not listed.
 */
export function failedItems(
  run: Run,
  known: ReadonlyMap<number, Failure>,
  stored: ReadonlySet<number>,
  isComplete: boolean,
): { item: number; failure: Failure | undefined }[] {
  const found = new Map<number, Failure | undefined>(known);
  // Items of a cancelled run that have no cache were not computed, unless they failed.
  const mayTell =
    isComplete && run.status === "failed" && run.n_done === stored.size && run.n_done + run.n_failed === run.n_items;
  if (mayTell) {
    for (let item = 0; item < run.n_items; item++) if (!stored.has(item) && !found.has(item)) found.set(item, undefined);
  }
  const failed = [...found].map(([item, failure]) => ({ item, failure })).sort((a, b) => a.item - b.item);
  const [first] = failed;
  if (first && !first.failure && run.error && (mayTell || run.n_failed === 1)) first.failure = run.error;
  return failed;
}

/** Seconds from acceptance to the end; undefined for a run that has not ended. */
export function tookSeconds(run: Run): number | undefined {
  if (!run.finished_at) return undefined;
  return (Date.parse(run.finished_at) - Date.parse(run.created_at)) / 1000;
}
