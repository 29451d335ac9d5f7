/** One run: how far it is, what it wrote, what failed, and its caches. */
import { useSignal } from "@preact/signals";
import type { Cache, Run } from "residuum";
import { CopyAs } from "../../components/copy_as";
import { PageHeader } from "../../components/page_header";
import { ProblemNote } from "../../components/problem";
import { counted } from "../../format/numbers";
import { pythonClient } from "../../format/snippets";
import { dateTime, duration } from "../../format/time";
import { go, href } from "../../router/location";
import { Link } from "../../router/link";
import { client } from "../../server/client";
import { useAction } from "../../server/resource";
import type { PageProps } from "../routes";
import { againOf } from "./again";
import { useFollowed } from "./follow";
import { isFinal, progressOf, speedOf, tookSeconds } from "./progress";
import { FailedInputs, RunCaches, useRunCaches } from "./run_caches";
import { RunExport } from "./run_export";
import { DeleteRun } from "./run_table";
import "./runs.css";

/** Continuations that are shown while they are written. */
const MOST_WRITTEN = 20;

export function RunPage({ params }: PageProps) {
  const id = params.id ?? "";
  const { run, error, texts, failures, nMissed } = useFollowed(id);
  const list = useRunCaches(run);
  if (error !== undefined) {
    return (
      <>
        <PageHeader title="Run" />
        <ProblemNote error={error} />
        <Link to={href("/runs")}>All runs</Link>
      </>
    );
  }
  if (!run) return <p class="loading">Loading run …</p>;
  return (
    <>
      <RunHeader run={run} caches={list.value?.found ?? []} />
      <section class="card" aria-label="Progress">
        <div class="row">
          <span class={`status status-${run.status}`}>{run.status}</span>
          <span>{progressOf(run).words}</span>
          {!isFinal(run) && <span class="soft">{speedOf(run)}</span>}
          <span class="spacer" />
          <span class="soft">{timesOf(run)}</span>
        </div>
        {!isFinal(run) && (
          <div
            class="bar run-bar"
            role="progressbar"
            aria-label="Progress"
            aria-valuenow={Math.round(progressOf(run).part * 100)}
          >
            <div style={{ width: `${progressOf(run).part * 100}%` }} />
          </div>
        )}
        {run.error && run.n_failed === 0 && (
          <div class="problem run-error" role="alert">
            <strong>{run.error.title}</strong>
            <code class="problem-code">{run.error.code}</code>
            <p>{run.error.detail}</p>
          </div>
        )}
        <Described run={run} />
      </section>
      <FailedInputs run={run} known={failures} list={list} />
      {texts.size > 0 && !isFinal(run) && (
        <section class="card" aria-labelledby="writing">
          <h2 id="writing">Being written</h2>
          {nMissed > 0 && <p class="soft">{counted(nMissed, "token")} came before this page listened.</p>}
          <ul class="run-caches">
            {[...texts].slice(-MOST_WRITTEN).map(([item, text]) => (
              <li key={item}>
                <span class="soft run-item" title={`Item ${item}`}>
                  {item}
                </span>
                <p class="written" dir="auto">
                  {text}
                </p>
              </li>
            ))}
          </ul>
        </section>
      )}
      <RunCaches run={run} list={list} />
      {isFinal(run) && list.value?.found[0] && <RunExport run={run} first={list.value.found[0]} />}
    </>
  );
}

function RunHeader({ run, caches }: { run: Run; caches: readonly Cache[] }) {
  const again = againOf(run, caches);
  const isAsking = useSignal(false);
  const act = useAction(async (signal, what: "cancel" | "delete") => {
    const given = { params: { path: { id: run.id } }, signal };
    if (what === "cancel") await client.post("/v1/runs/{id}/cancel", given);
    else {
      await client.delete("/v1/runs/{id}", given);
      go(href("/runs"));
    }
  });
  return (
    <>
      <PageHeader
        title={
          <>
            Run <code class="title-id">{run.id}</code>
          </>
        }
        actions={
          <>
            <CopyAs
              request={{ path: `/v1/runs/${run.id}` }}
              python={`${pythonClient(location.origin)}\nrun = client.run("${run.id}").wait()`}
              cli={`residuum runs show ${run.id}`}
            />
            {isFinal(run) && !run.imported && (
              <Link
                to={href("/", again.query)}
                class="button"
                {...(again.leftOut.length > 0 && { title: `Without ${again.leftOut.join(", ")}` })}
              >
                Run again
              </Link>
            )}
            {isFinal(run) ? (
              <button
                type="button"
                class="danger"
                onClick={() => {
                  isAsking.value = true;
                }}
              >
                Delete
              </button>
            ) : (
              <button type="button" class="danger" disabled={act.isRunning} onClick={() => void act.run("cancel")}>
                Cancel
              </button>
            )}
          </>
        }
      />
      {act.error !== undefined && <ProblemNote error={act.error} />}
      {isAsking.value && (
        <DeleteRun
          run={run}
          onConfirm={() => void act.run("delete")}
          onClose={() => {
            isAsking.value = false;
          }}
        />
      )}
    </>
  );
}

function Described({ run }: { run: Run }) {
  const metadata = Object.entries(run.metadata);
  return (
    <p class="run-described">
      {run.imported ? "Imported" : `Model ${run.model}, priority ${run.priority}`}
      {run.ttl_seconds != null && `, kept for ${duration(run.ttl_seconds)}`}
      {run.tags.map((tag) => (
        <Link key={tag} to={href("/caches", { tag })} class="tag">
          <bdi>{tag}</bdi>
        </Link>
      ))}
      {metadata.map(([key, value]) => (
        <span key={key} class="tag">
          <bdi>{key}</bdi>=<bdi>{typeof value === "string" ? value : JSON.stringify(value)}</bdi>
        </span>
      ))}
    </p>
  );
}

function timesOf(run: Run): string {
  const took = tookSeconds(run);
  const end = took === undefined ? "" : `, took ${took < 10 ? `${took.toFixed(2)} s` : duration(took)}`;
  return `Accepted ${dateTime(run.created_at)}${end}`;
}
