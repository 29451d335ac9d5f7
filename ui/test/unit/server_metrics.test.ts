import { expect, test } from "vitest";
import { numbersOf, parseMetrics } from "../../src/pages/server/metrics";
import { stageText } from "../../src/pages/server/progress";

const TEXT = `# HELP residuum_store_max_bytes Value of --max-store-bytes; +Inf without it.
# TYPE residuum_store_max_bytes gauge
residuum_store_max_bytes +Inf
residuum_store_disk_bytes 873448
residuum_queue_items{priority="interactive"} 2
residuum_queue_items{priority="bulk"} 40
residuum_queue_oldest_seconds{priority="bulk"} 61.5
residuum_queue_refused_total{bound="client"} 1
residuum_queue_refused_total{bound="total"} 2
residuum_in_flight_items 8 1700000000000
process_open_fds NaN
residuum_odd{a="x\\"y\\\\z\\nw, {b}",b="2"} -1.5e-3
this is no metric
residuum_broken{a=b} 3

residuum_store_caches 12`;

test("samples with labels, escapes, infinities and timestamps; the rest is left out", () => {
  const samples = parseMetrics(TEXT);
  expect(samples).toHaveLength(11);
  expect(samples[0]).toEqual({ name: "residuum_store_max_bytes", labels: {}, value: Infinity });
  expect(samples.at(-2)).toEqual({ name: "residuum_odd", labels: { a: 'x"y\\z\nw, {b}', b: "2" }, value: -0.0015 });
  expect(samples.find(({ name }) => name === "process_open_fds")?.value).toBeNaN();
});

test("numbers of the page: sums over labels, by priority, and what is missing", () => {
  const { store, queue, work } = numbersOf(parseMetrics(TEXT));
  expect(store).toMatchObject({ bytes: 873448, quota: Infinity, caches: 12, runs: undefined });
  expect(queue.waiting).toEqual([
    { priority: "interactive", items: 2, oldestSeconds: 0 },
    { priority: "normal", items: 0, oldestSeconds: 0 },
    { priority: "bulk", items: 40, oldestSeconds: 61.5 },
  ]);
  expect([queue.refused, queue.inFlight, work.tokensPerSecond]).toEqual([3, 8, undefined]);
});

test("progress of a load, with and without a known length", () => {
  expect(stageText({ stage: "weights", bytes_done: 25_000_000, bytes_total: 100_000_000 })).toEqual({
    part: 0.25,
    text: "Reads the weights: 25 MB of 100 MB",
  });
  expect(stageText({ stage: "downloading", bytes_done: 5_000, bytes_total: 0 })).toEqual({
    part: undefined,
    text: "Downloads: 5 kB",
  });
  expect(stageText({ stage: "queued", bytes_done: 0, bytes_total: 0 }).text).toBe("Waits for another load");
});
