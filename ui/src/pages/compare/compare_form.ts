/** What is compared: the form in the address, and the request that it makes. */
import type { Schemas } from "../../server/catalogue";

export const MODES = ["pairs", "matrix", "layers"] as const;
export type Mode = (typeof MODES)[number];
export const VECTOR_METRICS = ["cosine", "euclidean", "pearson", "mae", "dot", "jaccard"] as const;
export const SET_METRICS = ["cka", "cka_debiased", "rsa", "procrustes"] as const;
export type Metric = Schemas["Metric"];
export type Request = Schemas["ComparisonRequest"];

export interface CompareForm {
  mode: Mode;
  caches: string[];
  /** Tags of the two sets of mode `layers`. */
  a: string;
  b: string;
  metric: Metric;
  position: "last" | "mean" | "stored";
}

export function formOf(query: URLSearchParams): CompareForm {
  const mode = MODES.find((one) => one === query.get("mode")) ?? "pairs";
  const metrics: readonly Metric[] = mode === "layers" ? SET_METRICS : VECTOR_METRICS;
  const position = query.get("position");
  return {
    mode,
    caches: query.getAll("cache"),
    a: query.get("a") ?? "",
    b: query.get("b") ?? "",
    metric: metrics.find((one) => one === query.get("metric")) ?? (metrics[0] as Metric),
    position: position === "mean" || position === "stored" ? position : "last",
  };
}

/** The request; undefined while something is missing. */
export function requestOf({ mode, caches, a, b, metric, position }: CompareForm): Request | undefined {
  const common = { mode, metrics: [metric] };
  if (mode === "layers") {
    if (!a.trim()) return undefined;
    return { ...common, a: { tags: [a.trim()] }, ...(b.trim() && { b: { tags: [b.trim()] } }), position };
  }
  if (caches.length < 2) return undefined;
  if (mode === "matrix") return { ...common, caches, position };
  return { ...common, a: caches.slice(0, 1), b: caches.slice(1), position };
}

/** Whether larger values mean more alike. */
export function isSimilarity(metric: Metric): boolean {
  return !["euclidean", "mae", "procrustes"].includes(metric);
}

/** Metrics that lie between −1 and 1, or 0 and 1, and so have a scale of their own. */
export function rangeOf(metric: Metric): readonly [number, number] | undefined {
  if (metric === "cosine" || metric === "pearson" || metric === "cka_debiased" || metric === "rsa") return [-1, 1];
  if (["cka", "jaccard"].includes(metric)) return [0, 1];
  return undefined;
}
