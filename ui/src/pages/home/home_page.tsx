/** A new run: what to run, what to capture, what that would store. */
import { useEffect } from "preact/hooks";
import type { CreateRun, Model } from "residuum";
import { CopyAs } from "../../components/copy_as";
import { Choice, Select, optionsOf } from "../../components/fields";
import { PageHeader } from "../../components/page_header";
import { Empty, explain, Loaded, ProblemNote } from "../../components/problem";
import { go, href } from "../../router/location";
import { Link } from "../../router/link";
import { readyModels, type ReadyModel, useModels } from "../../server/catalogue";
import { client } from "../../server/client";
import { useAction } from "../../server/resource";
import { CaptureFields } from "./capture_fields";
import { Cost, useCost } from "./cost";
import { type Faults, faultsOf, isLong, requestOf, type RunForm } from "./form";
import { GenerationFields, StorageFields } from "./other_fields";
import { commandRun, pythonRun } from "./snippets";
import { InputFields } from "./input_fields";
import { useForm } from "./use_form";
import "./home.css";

export function HomePage() {
  const models = useModels();
  return (
    <>
      <PageHeader title="New run">
        Post a text, capture the activations you choose, and ask many questions of them afterwards.
      </PageHeader>
      <Loaded of={models} what="models">
        {(all) => {
          const ready = readyModels(all);
          return (
            <>
              <UnreadyModels models={all} reload={models.reload} />
              {ready.length > 0 ? (
                <NewRun models={ready} />
              ) : (
                <Empty title={all.length > 0 ? "No model is ready yet" : "This server has no model"}>
                  <Link to={href("/server")}>The server page</Link> shows what is being loaded, and loads others.
                </Empty>
              )}
            </>
          );
        }}
      </Loaded>
    </>
  );
}

function NewRun({ models }: { models: ReadyModel[] }) {
  const form = useForm();
  const model = models.find(({ id }) => id === form.value.model) ?? (models[0] as ReadyModel);
  const shown: RunForm = { ...form.value, model: model.id };
  if (shown.mode === "chat" && !model.has_chat_template) shown.mode = "text";
  const { body, faults: own } = requestOf(shown, model.n_layers);
  const isReady = Object.keys(own).length === 0;
  const cost = useCost(isReady ? body : null);

  const post = useAction(async (signal, request: CreateRun) => {
    const run = await client.runs.create(request, { signal });
    go(href(`/runs/${run.id}`));
  });
  const submit = () => {
    if (!isReady || post.isRunning) return;
    form.write();
    void post.run(body);
  };
  const set = (change: Partial<RunForm>) => {
    post.clear();
    form.change(change);
  };
  const refused = post.error ?? (cost.isCurrent ? cost.cost.error : undefined);
  const said = isReady && refused !== undefined ? explain(refused) : undefined;
  const faults: Faults = said ? faultsOf(said.errors, said.code) : own;
  return (
    <form
      class="new-run"
      onSubmit={(event) => {
        event.preventDefault();
        submit();
      }}
      onKeyDown={(event) => {
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
          event.preventDefault();
          submit();
        }
      }}
    >
      <div class="new-run-fields">
        <section class="card" aria-label="Input">
          <div class="row new-run-model">
            <Select
              label="Model"
              value={model.id}
              options={optionsOf(models.map(({ id }) => id))}
              onChange={(id) => set({ model: id, hooks: [] })}
            />
            {model.has_chat_template && (
              <Choice
                label="Kind of input"
                value={shown.mode}
                options={[
                  { value: "text", label: "Text" },
                  { value: "chat", label: "Chat" },
                ]}
                onChange={(mode) => set({ mode })}
              />
            )}
            <span class="soft new-run-about">
              {model.architecture}, {model.n_layers} layers, d_model {model.d_model}, context {model.n_ctx}
            </span>
          </div>
          <InputFields form={shown} set={set} />
          <Fault faults={faults} of={shown.mode === "chat" ? "messages" : "text"} isQuiet={!isReady} />
          <Fault faults={faults} of="model" />
        </section>
        <CaptureFields model={model} form={shown} set={set} faults={faults} />
        <div class="columns">
          <GenerationFields model={model} form={shown} set={set} faults={faults} />
          <StorageFields form={shown} set={set} faults={faults} />
        </div>
      </div>
      <aside class="new-run-side">
        <Cost body={isReady ? body : null} cost={cost} />
        <button type="submit" class="primary new-run-go" disabled={!isReady || post.isRunning} title="Ctrl-Enter">
          Run
        </button>
        {post.error !== undefined && <ProblemNote error={post.error} />}
        {isLong(shown) && <p class="soft">The texts are too long for the address: a link to this page leaves them out.</p>}
        {isReady && (
          <CopyAs
            request={{ method: "POST", path: "/v1/runs", body }}
            python={pythonRun(body, location.origin)}
            cli={commandRun(body)}
          />
        )}
      </aside>
    </form>
  );
}

/** Models that cannot run yet, or not at all. Those that are being loaded are asked for again until they are ready. */
function UnreadyModels({ models, reload }: { models: readonly Model[]; reload: () => void }) {
  const isLoading = models.some(({ status }) => status === "loading");
  useEffect(() => {
    if (!isLoading) return undefined;
    const timer = setInterval(reload, 2_000);
    return () => clearInterval(timer);
  }, [isLoading, reload]);
  return (
    <>
      {models.map((model) => {
        if (model.status === "ready") return null;
        const { id, status, progress, error } = model;
        const total = progress?.bytes_total ?? 0;
        const part = progress && total > 0 ? ` ${Math.floor((100 * progress.bytes_done) / total)} %` : "";
        return (
          <p key={id} role="status">
            <span class={`status status-${status}`}>
              <bdi>{id}</bdi> {status === "failed" ? "could not be loaded" : `is ${status}${part}`}
            </span>{" "}
            {error && <span class="soft">{error.detail}</span>}
          </p>
        );
      })}
    </>
  );
}

/** What is wrong with a field. `isQuiet`: what is merely missing is not shown as an error. */
export function Fault(props: { faults: Faults; of: keyof RunForm; isQuiet?: boolean; label?: string }) {
  const { faults, of, isQuiet = false, label } = props;
  const fault = faults[of];
  if (!fault) return null;
  return (
    <p class={isQuiet ? "soft fault" : "fault fault-bad"} role="status">
      {label && `${label}: `}
      {fault}
    </p>
  );
}
