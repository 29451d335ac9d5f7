/** Every run, newest first; those under way are asked for again until they have ended. */
import { useEffect } from "preact/hooks";
import { CopyAs } from "../../components/copy_as";
import { Select, TextField } from "../../components/fields";
import { PageHeader } from "../../components/page_header";
import { Empty, Loaded } from "../../components/problem";
import { pythonArguments, pythonClient, shellWord } from "../../format/snippets";
import { href, queryText, setQuery } from "../../router/location";
import { Link } from "../../router/link";
import { useModels } from "../../server/catalogue";
import { client } from "../../server/client";
import { useResource } from "../../server/resource";
import { isFinal } from "./progress";
import { RunTable } from "./run_table";
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
        <TextField label="Tag" value={tag} onInput={(value) => setQuery({ tag: value, cursor: null }, { replace: true })} />
      </div>
      <Loaded of={runs} what="runs">
        {({ items, next_cursor: next }) =>
          items.length === 0 ? (
            <Empty title={isFiltered ? "No run matches" : "No run yet"}>
              {isFiltered ? <Link to={href("/runs")}>Show all runs</Link> : <Link to={href("/")}>Post the first one</Link>}
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
