/** The table of runs, with what can be done to each. */
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { Run } from "residuum";
import { Confirm } from "../../components/dialog";
import { ProblemNote } from "../../components/problem";
import { count } from "../../format/numbers";
import { ago, dateTime } from "../../format/time";
import { href } from "../../router/location";
import { Link } from "../../router/link";
import { client } from "../../server/client";
import { useAction } from "../../server/resource";
import { useFollowed } from "./follow";
import { isFinal, progressOf, speedOf } from "./progress";

/** So many running runs are followed for their speed: browsers keep few connections to a server. */
const MOST_FOLLOWED = 2;

export function RunTable({ runs, onChange }: { runs: readonly Run[]; onChange: () => void }) {
  const deleted = useSignal<Run | null>(null);
  const followed = runs.filter(({ status }) => status === "running").slice(0, MOST_FOLLOWED);
  const act = useAction(async (signal, run: Run, what: "cancel" | "delete") => {
    const given = { params: { path: { id: run.id } }, signal };
    if (what === "cancel") await client.post("/v1/runs/{id}/cancel", given);
    else await client.delete("/v1/runs/{id}", given);
    onChange();
  });
  return (
    <>
      {act.error !== undefined && <ProblemNote error={act.error} />}
      <div class="table-box runs-table" role="region" aria-label="Runs" tabIndex={0}>
        <table>
          <thead>
            <tr>
              <th scope="col">Run</th>
              <th scope="col">Status</th>
              <th scope="col">Progress</th>
              <th scope="col">Model</th>
              <th scope="col">Priority</th>
              <th scope="col">Tags</th>
              <th scope="col">Accepted</th>
              <th scope="col">
                <span class="unseen">Actions</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {runs.map((run) => (
              <tr key={run.id}>
                <th scope="row">
                  <Link to={href(`/runs/${run.id}`)} class="mono">
                    {run.id.slice(0, 13)}…
                  </Link>
                </th>
                <td>
                  <span class={`status status-${run.status}`}>{run.status}</span>
                </td>
                <td>{followed.includes(run) ? <Live run={run} onEnd={onChange} /> : <Progress run={run} />}</td>
                <td>
                  <bdi>{run.model}</bdi>
                </td>
                <td>{run.imported ? "imported" : run.priority}</td>
                <td class="runs-tags">
                  {run.tags.map((tag) => (
                    <Link key={tag} to={href("/runs", { tag })} class="tag">
                      <bdi>{tag}</bdi>
                    </Link>
                  ))}
                </td>
                <td title={dateTime(run.created_at)}>{ago(Date.parse(run.created_at))}</td>
                <td class="runs-actions">
                  {isFinal(run) ? (
                    <button
                      type="button"
                      class="quiet"
                      aria-label={`Delete run ${run.id}`}
                      onClick={() => {
                        deleted.value = run;
                      }}
                    >
                      Delete
                    </button>
                  ) : (
                    <button
                      type="button"
                      class="quiet"
                      aria-label={`Cancel run ${run.id}`}
                      onClick={() => void act.run(run, "cancel")}
                    >
                      Cancel
                    </button>
                  )}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {deleted.value && (
        <DeleteRun
          run={deleted.value}
          onConfirm={() => void act.run(deleted.peek() as Run, "delete")}
          onClose={() => {
            deleted.value = null;
          }}
        />
      )}
    </>
  );
}

export function DeleteRun({ run, onConfirm, onClose }: { run: Run; onConfirm: () => void; onClose: () => void }) {
  return (
    <Confirm title="Delete this run?" action="Delete run and caches" onConfirm={onConfirm} onClose={onClose}>
      <p>
        The run and {run.n_done === 1 ? "its cache" : `all ${count(run.n_done)} of its caches`} are deleted. This cannot be
        undone.
      </p>
    </Confirm>
  );
}

/** A run that is followed: its speed and the time left, too. */
function Live({ run, onEnd }: { run: Run; onEnd: () => void }) {
  const now = useFollowed(run.id).run;
  const hasEnded = now !== undefined && isFinal(now);
  useEffect(() => {
    if (hasEnded) onEnd();
  }, [hasEnded]);
  return (
    <>
      <Progress run={now ?? run} />
      {now && !hasEnded && <span class="soft run-speed">{speedOf(now)}</span>}
    </>
  );
}

function Progress({ run }: { run: Run }) {
  const { part, words } = progressOf(run);
  return (
    <div class="run-progress">
      {!isFinal(run) && (
        <div class="bar" role="progressbar" aria-label="Progress" aria-valuenow={Math.round(part * 100)}>
          <div style={{ width: `${part * 100}%` }} />
        </div>
      )}
      <span>{words}</span>
    </div>
  );
}
