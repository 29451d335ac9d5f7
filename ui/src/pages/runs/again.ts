/** The fields of a new run that would ask for the same as an old one, as far as its caches tell. */
import type { Cache, Run } from "residuum";
import type { QueryValues } from "../../router/location";
import { type RunForm, EMPTY, queryOf } from "../home/form";
import { shortName } from "../../format/hooks";
import { positionsText } from "../home/positions";

export interface Again {
  query: QueryValues;
  /** What the form cannot have, in words. */
  leftOut: string[];
}

export function againOf(run: Run, caches: readonly Cache[]): Again {
  const form: RunForm = { ...EMPTY, model: run.model, tags: run.tags.join(", "), priority: run.priority };
  const leftOut: string[] = [];
  const metadata = Object.entries(run.metadata);
  const isFlat = metadata.every(([, value]) => typeof value !== "object" || value === null);
  form.metadata = isFlat ? metadata.map(([key, value]) => `${key}=${String(value)}`).join("\n") : "";
  if (!isFlat) leftOut.push("metadata with lists or objects");
  const first = caches[0];
  if (first) {
    texts(form, run, caches, leftOut);
    capture(form, first, caches, leftOut);
    generation(form, first);
    if (first.label != null && caches.every(({ label }) => label === first.label)) form.label = first.label;
    if (caches.some(({ provenance }) => provenance.interventions.length > 0)) leftOut.push("interventions");
  } else leftOut.push("the texts, which are kept with caches only");
  return { query: queryOf(form), leftOut };
}

function texts(form: RunForm, run: Run, caches: readonly Cache[], leftOut: string[]): void {
  // Samples of one input follow each other.
  const inputs = caches.filter(({ completion }) => (completion?.sample ?? 0) === 0).map(({ text }) => text);
  const found = inputs.filter((text): text is string => typeof text === "string");
  const isWhole = caches.length === run.n_items && found.length === inputs.length;
  if (found.length > 1 && found.some((text) => /[\r\n]/.test(text))) {
    leftOut.push("texts of several lines");
    return;
  }
  form.text = found.join("\n");
  form.isByLine = found.length > 1;
  if (!isWhole) leftOut.push("inputs that have no cache or no text here");
}

function capture(form: RunForm, first: Cache, caches: readonly Cache[], leftOut: string[]): void {
  form.hooks = [...new Set(first.hooks.map(({ hook }) => shortName(hook)))];
  const layers = new Set<number>();
  for (const { hook } of first.hooks) {
    const layer = /^blocks\.(\d+)\./.exec(hook)?.[1];
    if (layer !== undefined) layers.add(Number(layer));
  }
  if (layers.size > 0 && layers.size !== first.n_layers) form.layers = [...layers].sort((a, b) => a - b).join(",");
  const positions = positionsText(first.positions);
  if (caches.every((cache) => positionsText(cache.positions) === positions)) form.positions = positions;
  else leftOut.push("positions, which differ between inputs");
  const dtype = first.hooks[0]?.dtype;
  if (dtype === "float16" || dtype === "bfloat16") form.dtype = dtype;
  if (first.bos.requested != null) form.bos = first.bos.requested ? "with" : "without";
}

function generation(form: RunForm, { completion }: Cache): void {
  if (!completion) return;
  form.newTokens = String(completion.max_new_tokens);
  if (completion.temperature > 0) {
    form.temperature = String(completion.temperature);
    form.seed = String(completion.seed);
  }
  if (completion.top_p != null) form.topP = String(completion.top_p);
  if (completion.n > 1) form.samples = String(completion.n);
  if (completion.stop.length === 1) form.stop = (completion.stop[0] as string).replaceAll("\n", "\\n");
}
