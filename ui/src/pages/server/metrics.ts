/** Prometheus's text format, as far as `/metrics` uses it, and what the page shows of it. */

/** One line: a name, its labels, and a value (which may be infinite or NaN). */
export interface Sample {
  name: string;
  labels: Readonly<Record<string, string>>;
  value: number;
}

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?$/;
const LABEL = /\s*([a-zA-Z_]\w*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*,?/y;

/** The samples of a text, in its order. Comments and lines that cannot be read are left out. */
export function parseMetrics(text: string): Sample[] {
  const samples: Sample[] = [];
  for (const line of text.split("\n")) {
    const found = line.startsWith("#") ? null : LINE.exec(line.trim());
    if (!found) continue;
    const labels = labelsOf(found[2] ?? "");
    if (labels) samples.push({ name: found[1] as string, labels, value: numberOf(found[3] as string) });
  }
  return samples;
}

function labelsOf(text: string): Record<string, string> | undefined {
  const labels: Record<string, string> = {};
  LABEL.lastIndex = 0;
  let end = 0;
  for (let found = LABEL.exec(text); found; found = LABEL.exec(text)) {
    labels[found[1] as string] = (found[2] as string).replace(/\\(.)/g, (_, mark: string) => (mark === "n" ? "\n" : mark));
    end = LABEL.lastIndex;
  }
  return text.slice(end).trim() === "" ? labels : undefined;
}

function numberOf(text: string): number {
  if (text === "+Inf") return Infinity;
  if (text === "-Inf") return -Infinity;
  return Number(text);
}

/** What the server page shows. Undefined: the server does not tell. */
export interface Numbers {
  store: {
    bytes: number | undefined;
    /** Value of --max-store-bytes; Infinity without it. */
    quota: number | undefined;
    caches: number | undefined;
    runs: number | undefined;
    files: number | undefined;
    unknownBlobs: number | undefined;
    expired: number | undefined;
    evicted: number | undefined;
  };
  queue: {
    /** Inputs that wait, by priority. */
    waiting: readonly { priority: string; items: number; oldestSeconds: number }[];
    inFlight: number | undefined;
    bytes: number | undefined;
    generating: number | undefined;
    experimentsRunning: number | undefined;
    experimentsWaiting: number | undefined;
    refused: number | undefined;
  };
  work: {
    tokensPerSecond: number | undefined;
    captured: number | undefined;
    reused: number | undefined;
    failed: number | undefined;
    tokens: number | undefined;
    generated: number | undefined;
  };
  process: { memory: number | undefined; files: number | undefined; panics: number | undefined };
}

const PRIORITIES = ["interactive", "normal", "bulk"];

export function numbersOf(samples: readonly Sample[]): Numbers {
  const sums = new Map<string, number>();
  for (const { name, value } of samples) sums.set(name, (sums.get(name) ?? 0) + value);
  const sum = (name: string) => sums.get(`residuum_${name}`);
  const one = (name: string, priority: string) =>
    samples.find((sample) => sample.name === `residuum_${name}` && sample.labels.priority === priority)?.value ?? 0;
  return {
    store: {
      bytes: sum("store_disk_bytes"),
      quota: sum("store_max_bytes"),
      caches: sum("store_caches"),
      runs: sum("store_runs"),
      files: sum("store_packs"),
      unknownBlobs: sum("store_unknown_blobs"),
      expired: sum("caches_expired_total"),
      evicted: sum("caches_evicted_total"),
    },
    queue: {
      waiting: PRIORITIES.map((priority) => ({
        priority,
        items: one("queue_items", priority),
        oldestSeconds: one("queue_oldest_seconds", priority),
      })),
      inFlight: sum("in_flight_items"),
      bytes: sum("queue_bytes"),
      generating: sum("generating_sequences"),
      experimentsRunning: sum("experiments_running"),
      experimentsWaiting: sum("experiments_waiting"),
      refused: sum("queue_refused_total"),
    },
    work: {
      tokensPerSecond: sum("tokens_per_second"),
      captured: sum("items_captured_total"),
      reused: sum("items_reused_total"),
      failed: sum("items_failed_total"),
      tokens: sum("tokens_total"),
      generated: sum("tokens_generated_total"),
    },
    process: {
      memory: samples.find(({ name }) => name === "process_resident_memory_bytes")?.value,
      files: samples.find(({ name }) => name === "process_open_fds")?.value,
      panics: sum("worker_panics_total"),
    },
  };
}
