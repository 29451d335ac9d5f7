/** Activation patching: which parts of one run, put into the other, bring the answer back. */
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { CopyAs } from "../../components/copy_as";
import { Choice, Select, TextArea, TextField, optionsOf } from "../../components/fields";
import { PageHeader } from "../../components/page_header";
import { Empty, Loaded, ProblemNote } from "../../components/problem";
import { pythonArguments, pythonClient, pythonOf, shellWord } from "../../format/snippets";
import { visible } from "../../format/tokens";
import { href, place, setQuery } from "../../router/location";
import { Link } from "../../router/link";
import { readyModels, type ReadyModel, type Tokenization, useModel, useModels } from "../../server/catalogue";
import { client } from "../../server/client";
import { type Resource, useAction, useResource, pause } from "../../server/resource";
import { AlignedTokens } from "./aligned_tokens";
import {
  entered,
  EXAMPLE,
  formOf,
  hooksOf,
  type Matrix,
  METRICS,
  queryOf,
  requestOf,
  slices,
  type SweepForm,
  usesAgainst,
} from "./sweep";
import { SweepMap } from "./sweep_map";
import "./patching.css";

export function PatchingPage() {
  const models = useModels();
  return (
    <>
      <PageHeader title="Patching">
        Two texts that differ in a word lead to different answers. Put single activations of one run into the other, and see which
        of them carry the difference.
      </PageHeader>
      <Loaded of={models} what="models">
        {(all) => {
          const ready = readyModels(all).filter(({ bidirectional }) => !bidirectional);
          if (ready.length > 0) return <Sweep models={ready} />;
          return (
            <Empty title="Patching needs a language model">
              <Link to={href("/server")}>The server page</Link> shows the models, and loads others.
            </Empty>
          );
        }}
      </Loaded>
    </>
  );
}

/** The tokens of a text; nothing for an empty one. */
function useTokens(model: string, text: string): Resource<Tokenization> {
  return useResource(text === "" ? null : JSON.stringify([model, text]), async (signal) => {
    await pause(150, signal);
    return (await client.post("/v1/tokenize", { body: { model, text }, signal })) as Tokenization;
  });
}

function Sweep({ models }: { models: ReadyModel[] }) {
  const given = formOf(place.value.query);
  const model = models.find(({ id }) => id === given.model) ?? (models[0] as ReadyModel);
  const form: SweepForm = { ...given, model: model.id };
  const set = (change: Partial<SweepForm>) =>
    setQuery({ ...queryOf({ ...form, ...change }), run: null, layer: null, column: null }, { replace: true });

  const clean = useTokens(model.id, form.clean);
  const corrupt = useTokens(model.id, form.corrupt);
  const isEven = clean.value && corrupt.value && clean.value.n_tokens === corrupt.value.n_tokens;
  const detailed = useModel(model.id).value as ReadyModel | undefined;
  const hooks = hooksOf(detailed?.hooks?.map(({ hook }) => hook));
  const hasHook = form.over === "heads" || hooks.includes(form.hook);
  const isReady = Boolean(isEven && hasHook && form.answer && form.clean !== form.corrupt);

  const matrix = useSignal<{ key: string; value: Matrix | null }>({ key: "", value: null });
  const key = JSON.stringify(form);
  const run = useAction(async (signal) => {
    const layers = Array.from({ length: model.n_layers }, (_, i) => i);
    matrix.value = { key, value: null };
    for (const slice of slices(layers)) {
      const answer = await client.patching.run(requestOf(form, slice), { signal });
      matrix.value = { key, value: entered(matrix.peek().value, answer, layers) };
    }
  });
  const start = () => {
    setQuery({ run: "1" }, { replace: true });
    void run.run();
  };
  // A shared address computes at once; a changed form stops what was under way.
  const wantsRun = place.value.query.has("run");
  useEffect(() => {
    if (wantsRun && isReady && matrix.peek().key !== key) void run.run();
    if (!wantsRun) run.stop();
  }, [wantsRun, isReady, key]);

  const body = requestOf(form);
  const shown = matrix.value.key === key ? matrix.value.value : null;
  return (
    <>
      <section class="card" aria-label="Texts">
        <div class="columns">
          <TextArea
            label="Clean text: leads to the answer"
            rows={2}
            value={form.clean}
            onInput={(text) => set({ clean: text })}
          />
          <TextArea
            label="Corrupt text: leads elsewhere"
            rows={2}
            value={form.corrupt}
            onInput={(text) => set({ corrupt: text })}
          />
        </div>
        {form.clean === "" && form.corrupt === "" && (
          <p class="examples">
            <button type="button" class="quiet" onClick={() => set(EXAMPLE)}>
              Fill in an example: who gets the drink?
            </button>
          </p>
        )}
        {clean.error !== undefined && <ProblemNote error={clean.error} />}
        {corrupt.error !== undefined && <ProblemNote error={corrupt.error} />}
        {clean.value && corrupt.value && <AlignedTokens clean={clean.value} corrupt={corrupt.value} />}
        <div class="row sweep-fields">
          <Select
            label="Model"
            value={model.id}
            options={optionsOf(models.map(({ id }) => id))}
            onChange={(id) => set({ model: id })}
          />
          <TokenField model={model.id} label="Answer" value={form.answer} onInput={(answer) => set({ answer })} />
          <TokenField
            model={model.id}
            label="Against (optional)"
            value={form.against}
            hint={form.against && !usesAgainst(form) ? "For the logit difference only: not used now." : undefined}
            onInput={(against) => set({ against })}
          />
          <Select
            label="Metric"
            value={form.metric}
            options={[
              { value: "" as const, label: form.against ? "logit difference" : "probability" },
              ...METRICS.filter((metric) => metric !== (form.against ? "logit_diff" : "probability"))
                .filter((metric) => Boolean(form.against) || metric !== "logit_diff")
                .map((metric) => ({ value: metric, label: metric.replace("_", " ") })),
            ]}
            onChange={(metric) => set({ metric })}
          />
        </div>
        <div class="row sweep-fields">
          <Choice
            label="What is patched"
            value={form.over}
            options={[
              { value: "positions", label: "Layers × positions" },
              { value: "heads", label: "Layers × heads" },
            ]}
            onChange={(over) => set({ over })}
          />
          {form.over === "positions" && (
            <Select
              label="Hook"
              value={form.hook}
              options={[...hooks, ...(hasHook ? [] : [form.hook])].map((value) => ({ value, label: value }))}
              onChange={(hook) => set({ hook })}
            />
          )}
          <Choice
            label="Direction"
            value={form.direction}
            options={[
              { value: "denoise", label: "Clean into corrupt" },
              { value: "noise", label: "Corrupt into clean" },
            ]}
            onChange={(direction) => set({ direction })}
          />
          <span class="spacer" />
          {run.isRunning ? (
            <button type="button" onClick={run.stop}>
              Stop
            </button>
          ) : (
            <button type="button" class="primary" disabled={!isReady} onClick={start}>
              Sweep
            </button>
          )}
        </div>
      </section>
      {!hasHook && (
        <p class="fault fault-bad">
          {model.id} has no {form.hook}: choose another hook.
        </p>
      )}
      {run.error !== undefined && <ProblemNote error={run.error} />}
      {run.isRunning && !shown && <p class="loading">The first layers are being computed …</p>}
      {shown && <SweepMap matrix={shown} isRunning={run.isRunning} />}
      {isReady && (
        <div class="sweep-copy">
          <CopyAs
            request={{ method: "POST", path: "/v1/experiments/patching", body }}
            python={`${pythonClient(location.origin)}\neffect = client.model(${pythonOf(form.model)}).patching(${pythonOf(form.clean)}, ${pythonOf(form.corrupt)}, ${pythonArguments({ answer: form.answer, against: body.against, sweep: body.sweep, metric: body.metric, direction: body.direction })})`}
            cli={commandOf(form)}
          />
        </div>
      )}
    </>
  );
}

function commandOf(form: SweepForm): string {
  const { model, clean, corrupt, answer, against, over, hook, direction } = form;
  const { metric } = requestOf(form);
  const words = [
    `residuum patch ${shellWord(clean)} ${shellWord(corrupt)} -m ${shellWord(model)} --answer ${shellWord(answer)}`,
    usesAgainst(form) && `--against ${shellWord(against)}`,
    metric && `--metric ${metric}`,
    over === "heads" ? "--hook attn.z --heads each" : `--hook ${hook} --positions each`,
    direction === "noise" && "--direction noise",
  ];
  return words.filter(Boolean).join(" ");
}

/** A field for exactly one token: says what a text is otherwise. */
function TokenField(props: {
  model: string;
  label: string;
  value: string;
  hint?: string | undefined;
  onInput: (value: string) => void;
}) {
  const { model, label, value, hint, onInput } = props;
  const tokens = useResource(value === "" ? null : JSON.stringify([model, value]), async (signal) => {
    const body = { model, text: value, prepend_bos: false };
    return (await client.post("/v1/tokenize", { body, signal })) as Tokenization;
  });
  const found = tokens.value;
  const isOne = found?.n_tokens === 1;
  return (
    <div class="token-field">
      <TextField label={label} value={value} mono onInput={onInput} placeholder=" Mary" />
      {hint && <small class="soft">{hint}</small>}
      {tokens.error !== undefined && <ProblemNote error={tokens.error} />}
      {found && !isOne && <p class="fault fault-bad">{found.tokens.map(visible).join(" | ")}: one token is needed</p>}
    </div>
  );
}
