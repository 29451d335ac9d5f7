/** One run: how far it is, what it wrote, what failed, and its caches. */
import { useSignal } from "@preact/signals";
import type { Cache, Run } from "residuum";
import { CopyAs } from "../../components/copy_as";
import { PageHeader } from "../../components/page_header";
import { Empty, Loaded, ProblemNote } from "../../components/problem";
import { percent } from "../../format/numbers";
import { pythonClient } from "../../format/snippets";
import { dateTime, duration } from "../../format/time";
import { preview, visible } from "../../format/tokens";
import { go, href } from "../../router/location";
import { Link } from "../../router/link";
import { client } from "../../server/client";
import { useAction, useResource } from "../../server/resource";
import type { PageProps } from "../routes";
import { useFollowed } from "./follow";
import { isFinal, progressOf, speedOf, tookSeconds } from "./progress";
import { DeleteRun } from "./runs_page";
import "./runs.css";

/** Caches on a page of the list. */
const PAGE = 100;

export function RunPage({ params }: PageProps) {
    const id = params.id ?? "";
    const { run, error, texts } = useFollowed(id);
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
            <RunHeader run={run} />
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
                {run.error && (
                    <div class="problem run-error" role="alert">
                        <strong>{run.error.title}</strong>
                        <code class="problem-code">{run.error.code}</code>
                        <p>{run.error.detail}</p>
                    </div>
                )}
                <Described run={run} />
            </section>
            {texts.size > 0 && !isFinal(run) && (
                <section class="card" aria-labelledby="writing">
                    <h2 id="writing">Being written</h2>
                    {[...texts].slice(0, 20).map(([item, text]) => (
                        <p key={item} class="written" dir="auto">
                            {text}
                        </p>
                    ))}
                </section>
            )}
            <RunCaches run={run} />
        </>
    );
}

function RunHeader({ run }: { run: Run }) {
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

function RunCaches({ run }: { run: Run }) {
    const shown = useSignal(PAGE);
    // Asked again whenever more inputs are done.
    const caches = useResource(`caches of ${run.id} ${run.n_done} ${shown.value}`, async (signal) => {
        const found: Cache[] = [];
        let cursor: string | undefined;
        do {
            const query = { limit: PAGE, include: ["top_tokens" as const], top_k: 3, ...(cursor && { cursor }) };
            const page = await client.get("/v1/runs/{id}/caches", { params: { path: { id: run.id }, query }, signal });
            found.push(...page.items);
            cursor = page.next_cursor ?? undefined;
        } while (cursor && found.length < shown.value);
        return { found, hasMore: cursor !== undefined };
    });
    if (run.n_done === 0) return isFinal(run) ? <Empty title="No input of this run was stored" /> : null;
    return (
        <section class="card" aria-labelledby="run-caches">
            <div class="row">
                <h2 id="run-caches">Caches</h2>
                <span class="spacer" />
                <Link to={href("/caches", { run: run.id })}>Select among them</Link>
            </div>
            <Loaded of={caches} what="caches">
                {({ found, hasMore }) => (
                    <>
                        <ol class="run-caches">
                            {found.map((cache) => (
                                <CacheItem key={cache.id} cache={cache} />
                            ))}
                        </ol>
                        {hasMore && (
                            <button
                                type="button"
                                onClick={() => {
                                    shown.value += 400;
                                }}
                            >
                                Show more
                            </button>
                        )}
                    </>
                )}
            </Loaded>
        </section>
    );
}

function CacheItem({ cache }: { cache: Cache }) {
    const { completion, text, top_tokens: next } = cache;
    return (
        <li>
            <Link to={href(`/caches/${cache.id}`)}>
                <bdi>{preview(text ?? cache.tokens.join(""), 160) || "An input without text"}</bdi>
            </Link>{" "}
            {cache.reused && <span class="tag">from the store</span>}
            {completion && (
                <p class="written" dir="auto">
                    {completion.text}
                    <span class="soft"> ({completion.finish_reason})</span>
                </p>
            )}
            {next && next.tokens.length > 0 && (
                <p class="soft">
                    Next:{" "}
                    {next.tokens.map(({ id, token, probability }) => (
                        <span key={id} class="next-token">
                            <code>
                                <bdi>{visible(token)}</bdi>
                            </code>{" "}
                            {percent(probability)}
                        </span>
                    ))}
                </p>
            )}
        </li>
    );
}
