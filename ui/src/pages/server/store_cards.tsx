/** Size of the store, the queue and the work done: what `/metrics` says. */
import { ResiduumError } from "residuum";
import { ProblemNote } from "../../components/problem";
import { bytes, count, counted, percent, significant } from "../../format/numbers";
import { duration } from "../../format/time";
import { client } from "../../server/client";
import { useResource } from "../../server/resource";
import { type Fact, Facts } from "./facts";
import type { Numbers } from "./metrics";
import type { Polled } from "./polled";

export function StoreCards({ numbers }: { numbers: Polled<Numbers> }) {
  const { value, error } = numbers;
  if (error instanceof ResiduumError && error.status === 403) return <StoreWithoutMetrics detail={error.detail} />;
  if (!value)
    return error === undefined ? (
      <p class="loading">Loading numbers …</p>
    ) : (
      <ProblemNote error={error} onRetry={numbers.reload} />
    );
  return (
    <div class="columns">
      <StoreCard store={value.store} />
      <QueueCard queue={value.queue} />
      <WorkCard work={value.work} process={value.process} />
    </div>
  );
}

function StoreWithoutMetrics({ detail }: { detail: string }) {
  const total = useResource("count of caches", async (signal) => {
    const query = { limit: 1, count: true, fields: "id" };
    return (await client.get("/v1/caches", { params: { query }, signal })).total;
  });
  return (
    <section class="card" aria-labelledby="server-store">
      <h2 id="server-store">Store and queue</h2>
      {typeof total.value === "number" && <Facts facts={[["caches of your tenant", count(total.value)]]} />}
      <p class="soft">
        The size of the store and the queue count all tenants together, and need a key with the scope <code>metrics</code> or{" "}
        <code>admin</code>. {detail}
      </p>
    </section>
  );
}

/** A fact that the server may not tell. */
const told = (name: string, value: number | undefined, format: (value: number) => string): Fact =>
  value !== undefined && [name, format(value)];
/** A fact that matters only if there is something to tell. */
const some = (name: string, value: number | undefined, format: (value: number) => string): Fact =>
  value !== undefined && value > 0 && [name, format(value)];

function StoreCard({ store }: { store: Numbers["store"] }) {
  const hasQuota = store.quota !== undefined && Number.isFinite(store.quota);
  const used = store.bytes ?? 0;
  const part = hasQuota ? used / (store.quota as number) : 0;
  return (
    <section class="card" aria-labelledby="server-store">
      <h2 id="server-store">Store</h2>
      <p class="server-figure">
        <strong>{bytes(used)}</strong> <span class="soft">{hasQuota ? `of ${bytes(store.quota as number)}` : "no quota"}</span>
      </p>
      {hasQuota && (
        <div
          class={part > 0.9 ? "bar server-full" : "bar"}
          role="meter"
          aria-label="Use of the quota"
          aria-valuemin={0}
          aria-valuemax={100}
          aria-valuenow={Math.round(Math.min(1, part) * 100)}
          aria-valuetext={percent(part)}
        >
          <div style={{ width: `${Math.min(1, part) * 100}%` }} />
        </div>
      )}
      <Facts
        facts={[
          told("caches", store.caches, count),
          told("runs", store.runs, count),
          told("blob files", store.files, count),
          some("unknown blobs", store.unknownBlobs, count),
          some("expired caches", store.expired, count),
          some("evicted caches", store.evicted, count),
        ]}
      />
    </section>
  );
}

function QueueCard({ queue }: { queue: Numbers["queue"] }) {
  const items = queue.waiting.reduce((sum, one) => sum + one.items, 0);
  return (
    <section class="card" aria-labelledby="server-queue">
      <h2 id="server-queue">Queue</h2>
      <p class="server-figure">
        <strong>{count(items)}</strong> <span class="soft">{items === 1 ? "input waits" : "inputs wait"}</span>
      </p>
      <Facts
        facts={[
          ...queue.waiting.map(
            ({ priority, items: waiting, oldestSeconds }): Fact => [
              priority,
              waiting > 0 ? `${count(waiting)}, oldest ${duration(oldestSeconds)}` : "0",
            ],
          ),
          told("computed now", queue.inFlight, count),
          some("being continued", queue.generating, count),
          some("to be stored", queue.bytes, (value) => `at most ${bytes(value)}`),
          told("experiments", queue.experimentsRunning, (value) => {
            const waiting = queue.experimentsWaiting ?? 0;
            return `${count(value)} running${waiting > 0 ? `, ${count(waiting)} waiting` : ""}`;
          }),
          some("refused runs", queue.refused, count),
        ]}
      />
    </section>
  );
}

function WorkCard({ work, process }: { work: Numbers["work"]; process: Numbers["process"] }) {
  return (
    <section class="card" aria-labelledby="server-work">
      <h2 id="server-work">Since it started</h2>
      <p class="server-figure">
        <strong>{significant(Math.round((work.tokensPerSecond ?? 0) * 10) / 10)}</strong>{" "}
        <span class="soft">tokens per second, recently</span>
      </p>
      <Facts
        facts={[
          told("captured", work.captured, (value) => counted(value, "input")),
          told("from the store", work.reused, (value) => counted(value, "input")),
          some("failed", work.failed, (value) => counted(value, "input")),
          told("tokens", work.tokens, count),
          some("generated", work.generated, (value) => counted(value, "token")),
          told("process memory", process.memory, bytes),
          some("open files", process.files, count),
          some("worker panics", process.panics, count),
        ]}
      />
    </section>
  );
}
