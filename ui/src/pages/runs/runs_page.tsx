/** Every run, newest first; those under way are asked for again until they have ended. */
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { Run } from "residuum";
import { Confirm } from "../../components/dialog";
import { CopyAs } from "../../components/copy_as";
import { Select, TextField } from "../../components/fields";
import { PageHeader } from "../../components/page_header";
import { Empty, Loaded, ProblemNote } from "../../components/problem";
import { count } from "../../format/numbers";
import { pythonArguments, pythonClient, shellWord } from "../../format/snippets";
import { ago, dateTime } from "../../format/time";
import { href, queryText, setQuery } from "../../router/location";
import { Link } from "../../router/link";
import { useModels } from "../../server/catalogue";
import { client } from "../../server/client";
import { useAction, useResource } from "../../server/resource";
import { isFinal, progressOf } from "./progress";
import "./runs.css";

const STATUSES = ["queued", "running", "completed", "failed", "cancelled"] as const;
const PAGE = 50;
const PERIOD = 2_000;

export function RunsPage() {
    const status = STATUSES.find((one) => one === queryText("status"));
    const model = queryText("model");
    const tag = queryText("tag");
    const cursor = queryText("cursor") || undefined;
    const models = useModels();
    const query = {
        ...(status && { status }),
        ...(model && { model }),
        ...(tag && { tag: [tag] }),
        limit: PAGE,
        ...(cursor && { cursor }),
    };
    const runs = useResource(`runs ${JSON.stringify(query)}`, (signal) => client.get("/v1/runs", { params: { query }, signal }));
    const isMoving = runs.value?.items.some((run) => !isFinal(run)) ?? false;
    useEffect(() => {
        if (!isMoving) return undefined;
        const timer = setInterval(() => {
            if (!document.hidden) runs.reload();
        }, PERIOD);
        return () => clearInterval(timer);
    }, [isMoving, runs.reload]);
    const isFiltered = Boolean(status || model || tag);
    const path = `/v1/runs?${new URLSearchParams(Object.entries({ status, model, tag }).filter((pair): pair is [string, string] => !!pair[1]))}`;
    const filters = [status && `--status ${status}`, model && `-m ${shellWord(model)}`, tag && `--tag ${shellWord(tag)}`];
    return (
        <>
            <PageHeader
                title="Runs"
                actions={
                    <CopyAs
                        request={{ path: path.replace(/\?$/, "") }}
                        python={`${pythonClient(location.origin)}\nfor run in client.runs(${pythonArguments({ status, model: model || undefined, tag: tag || undefined })}):\n    print(run.id, run.status)`}
                        cli={["residuum runs ls", ...filters].filter(Boolean).join(" ")}
                    />
                }
            >
                What has been asked of the models, newest first.
            </PageHeader>
            <div class="row runs-filters">
                <Select
                    label="Status"
                    value={status ?? ""}
                    options={[{ value: "", label: "any" }, ...STATUSES.map((value) => ({ value, label: value }))]}
                    onChange={(value) => setQuery({ status: value, cursor: null })}
                />
                <Select
                    label="Model"
                    value={model}
                    options={[
                        { value: "", label: "any" },
                        ...(models.value ?? []).map(({ id }) => ({ value: id, label: id })),
                        ...(model && !models.value?.some(({ id }) => id === model) ? [{ value: model, label: model }] : []),
                    ]}
                    onChange={(value) => setQuery({ model: value, cursor: null })}
                />
                <TextField
                    label="Tag"
                    value={tag}
                    onInput={(value) => setQuery({ tag: value, cursor: null }, { replace: true })}
                />
            </div>
            <Loaded of={runs} what="runs">
                {({ items, next_cursor: next }) =>
                    items.length === 0 ? (
                        <Empty title={isFiltered ? "No run matches" : "No run yet"}>
                            {isFiltered ? (
                                <Link to={href("/runs")}>Show all runs</Link>
                            ) : (
                                <Link to={href("/")}>Post the first one</Link>
                            )}
                        </Empty>
                    ) : (
                        <>
                            <RunTable runs={items} onChange={runs.reload} />
                            <div class="buttons">
                                {cursor && (
                                    <button type="button" onClick={() => history.back()}>
                                        Newer
                                    </button>
                                )}
                                {next && (
                                    <button type="button" onClick={() => setQuery({ cursor: next })}>
                                        Older
                                    </button>
                                )}
                            </div>
                        </>
                    )
                }
            </Loaded>
        </>
    );
}

function RunTable({ runs, onChange }: { runs: readonly Run[]; onChange: () => void }) {
    const deleted = useSignal<Run | null>(null);
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
                                        {run.id.slice(0, 18)}…
                                    </Link>
                                </th>
                                <td>
                                    <span class={`status status-${run.status}`}>{run.status}</span>
                                </td>
                                <td>
                                    <Progress run={run} />
                                </td>
                                <td>{run.model}</td>
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
                The run and {run.n_done === 1 ? "its cache" : `all ${count(run.n_done)} of its caches`} are deleted. This cannot
                be undone.
            </p>
        </Confirm>
    );
}

export function Progress({ run }: { run: Run }) {
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
