/** A patching sweep: its form in the address, its requests, and the matrix that they fill. */
import type { PatchingRequest } from "residuum";
import { shortName } from "../../format/hooks";
import { flatNumbers } from "../../format/nested";
import type { QueryValues } from "../../router/location";
import type { Schemas } from "../../server/catalogue";

export const HOOKS = ["resid_pre", "resid_mid", "attn_out", "mlp_out", "resid_post"] as const;
export const METRICS = ["logit_diff", "logit", "probability", "log_probability"] as const;
export type Metric = (typeof METRICS)[number];

export interface SweepForm {
  model: string;
  clean: string;
  corrupt: string;
  answer: string;
  against: string;
  /** What the columns are. */
  over: "positions" | "heads";
  hook: (typeof HOOKS)[number];
  direction: "denoise" | "noise";
  /** Empty for the server's default. */
  metric: Metric | "";
}

export const EXAMPLE: Partial<SweepForm> = {
  clean: "When John and Mary went to the store, John gave a drink to",
  corrupt: "When John and Mary went to the store, Mary gave a drink to",
  answer: " Mary",
  against: " John",
};

export function formOf(query: URLSearchParams): SweepForm {
  const text = (name: string) => query.get(name) ?? "";
  return {
    model: text("model"),
    clean: text("clean"),
    corrupt: text("corrupt"),
    answer: text("answer"),
    against: text("against"),
    over: query.get("over") === "heads" ? "heads" : "positions",
    hook: HOOKS.find((hook) => hook === query.get("hook")) ?? "resid_pre",
    direction: query.get("direction") === "noise" ? "noise" : "denoise",
    metric: METRICS.find((metric) => metric === query.get("metric")) ?? "",
  };
}

export function queryOf(form: SweepForm): QueryValues {
  return {
    ...form,
    over: form.over === "heads" ? "heads" : null,
    hook: form.hook === "resid_pre" ? null : form.hook,
    direction: form.direction === "noise" ? "noise" : null,
  };
}

/** Whether the metric subtracts another token's logit: the API refuses `against` with the others. */
export function usesAgainst({ against, metric }: Pick<SweepForm, "against" | "metric">): boolean {
  return against !== "" && (metric === "" || metric === "logit_diff");
}

/** The hooks of a sweep that a model has: one with parallel blocks has no `resid_mid`. All while the model's are not known. */
export function hooksOf(names: readonly string[] | undefined): readonly SweepForm["hook"][] {
  if (names === undefined) return HOOKS;
  const known = new Set(names.map(shortName));
  return HOOKS.filter((hook) => known.has(hook));
}

/** The whole sweep as one request. */
export function requestOf(form: SweepForm, layers?: number[]): PatchingRequest {
  const { model, clean, corrupt, answer, against, over, hook, direction, metric } = form;
  const sweep: Schemas["SweepRequest"] = {
    hook: over === "heads" ? "attn.z" : hook,
    ...(layers && { layers }),
    ...(over === "heads" ? { heads: "each" as const } : { positions: "each" as const }),
  };
  return {
    model,
    clean,
    corrupt,
    answer,
    ...(usesAgainst(form) && { against }),
    ...(metric && (metric !== "logit_diff" || against) && { metric }),
    sweep,
    ...(direction === "noise" && { direction }),
  };
}

/** Layers in slices, from the last one down: one request each, so that rows appear as they are computed. */
export function slices(layers: readonly number[], most = 10): number[][] {
  const size = Math.max(1, Math.ceil(layers.length / most));
  const found: number[][] = [];
  for (let end = layers.length; end > 0; end -= size) found.push(layers.slice(Math.max(0, end - size), end));
  return found;
}

/** What has been computed so far. Rows are layers, in the order of `layers`. */
export interface Matrix {
  layers: readonly number[];
  columns: number;
  /** The metric of each changed run; NaN where it is not computed yet. */
  values: Float64Array;
  /** The same, less that of the unchanged run. */
  effect: Float64Array;
  /** The effect as a fraction of the difference of the two runs. */
  normalized: Float64Array;
  /** The first answer: tokens, baselines and names. */
  about: Schemas["Patching"];
  nDone: number;
}

/** Enters an answer for some of the layers. Returns a new matrix, so that it is drawn again. */
export function entered(matrix: Matrix | null, answer: Schemas["Patching"], layers: readonly number[]): Matrix {
  const parts = [answer.values, answer.effect, answer.normalized].map(flatNumbers);
  const columns = answer.layers.length === 0 ? 0 : (parts[0] as number[]).length / answer.layers.length;
  const empty = () => new Float64Array(layers.length * columns).fill(Number.NaN);
  const next: Matrix = matrix
    ? { ...matrix }
    : { layers, columns, values: empty(), effect: empty(), normalized: empty(), about: answer, nDone: 0 };
  answer.layers.forEach((layer, row) => {
    const at = layers.indexOf(layer) * columns;
    [next.values, next.effect, next.normalized].forEach((into, part) => {
      const from = parts[part] as number[];
      for (let column = 0; column < columns; column++) into[at + column] = from[row * columns + column] ?? Number.NaN;
    });
  });
  next.nDone += answer.layers.length;
  return next;
}
