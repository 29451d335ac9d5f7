/** A continuation with and without a direction added to the residual stream, side by side. */
import { useSignal } from "@preact/signals";
import type { Direction } from "residuum";
import { CopyAs } from "../../components/copy_as";
import { Select, Slider, TextArea, TextField, optionsOf } from "../../components/fields";
import { PageHeader } from "../../components/page_header";
import { Empty, Loaded, ProblemNote } from "../../components/problem";
import { significant } from "../../format/numbers";
import { withoutPrefix } from "../../format/hooks";
import { pythonClient } from "../../format/snippets";
import { href, place, setQuery } from "../../router/location";
import { Link } from "../../router/link";
import { readyModels, type ReadyModel, useModels } from "../../server/catalogue";
import { client } from "../../server/client";
import { useAction, useResource } from "../../server/resource";
import { commaList } from "../../format/lists";
import { NewDirection } from "./new_direction";
import { RelativeLength } from "./relative_length";
import {
  commandOf,
  differences,
  formOf,
  MOST_STRENGTH,
  type Piece,
  pythonCallOf,
  queryOf,
  requestOf,
  type SteerForm,
  STRENGTH_STEP,
} from "./steer_form";
import { useWritten, type Written } from "./written";
import "./steer.css";

export function SteerPage() {
  const models = useModels();
  const directions = useResource("directions", async (signal) => {
    const found: Direction[] = [];
    for await (const one of client.directions.all({ limit: 200 }, { signal })) found.push(one);
    return found;
  });
  return (
    <>
      <PageHeader title="Steer">
        Add a direction to the residual stream while the model writes, and compare with what it writes by itself.
      </PageHeader>
      <Loaded of={models} what="models">
        {(all) => {
          const ready = readyModels(all).filter(({ bidirectional }) => !bidirectional);
          if (ready.length === 0) {
            return (
              <Empty title="Steering needs a language model">
                <Link to={href("/server")}>The server page</Link> shows the models, and loads others.
              </Empty>
            );
          }
          return (
            <Loaded of={directions} what="directions">
              {(found) => (
                <Steering models={ready} directions={found} isLoading={directions.isLoading} onMade={directions.reload} />
              )}
            </Loaded>
          );
        }}
      </Loaded>
    </>
  );
}

function Steering(props: { models: ReadyModel[]; directions: Direction[]; isLoading: boolean; onMade: () => void }) {
  const { models, directions, isLoading, onMade } = props;
  const given = formOf(place.value.query);
  const model = models.find(({ id }) => id === given.model) ?? (models[0] as ReadyModel);
  const usable = directions.filter((one) => one.width === model.d_model && (one.model == null || one.model === model.id));
  // A name in the address that is not there is said, never replaced: another direction would be another experiment.
  const direction = given.direction === "" ? usable[0] : usable.find(({ name }) => name === given.direction);
  const layers = direction?.layers ?? [];
  const hook = withoutPrefix(direction?.hook ?? "hook_resid_post");
  // A hook outside the blocks, such as that of the embedding, has no layers.
  const middle = layers[Math.floor(layers.length / 2)] ?? -1;
  const form: SteerForm = {
    ...given,
    model: model.id,
    direction: direction?.name ?? given.direction,
    layer: layers.includes(given.layer) ? given.layer : middle,
  };
  const set = (change: Partial<SteerForm>) => setQuery(queryOf({ ...form, ...change }), { replace: true });
  const isReady = form.text !== "" && direction !== undefined;
  const plain = requestOf(form, null);
  const steered = requestOf(form, hook);
  const baseline = useWritten(form.text === "" ? null : JSON.stringify(plain), plain);
  const changed = useWritten(isReady ? JSON.stringify(steered) : null, steered);
  const at = Math.max(0, layers.indexOf(form.layer));
  return (
    <>
      <section class="card" aria-label="What is steered">
        <div class="row">
          <Select
            label="Model"
            value={model.id}
            options={optionsOf(models.map(({ id }) => id))}
            onChange={(id) => set({ model: id, direction: "", layer: -1 })}
          />
          <TextArea label="Text to continue" rows={2} value={form.text} onInput={(text) => set({ text })} />
        </div>
        {form.text === "" && (
          <p class="examples">
            <span class="soft">Try</span>{" "}
            <button type="button" class="quiet" onClick={() => set({ text: "When I opened the letter, I felt" })}>
              When I opened the letter, I felt
            </button>
          </p>
        )}
        {!direction && form.direction !== "" && !isLoading && (
          <p class="fault fault-bad">
            There is no direction <bdi>{form.direction}</bdi> for {model.id}
            {usable.length > 0 ? ": choose another one." : ": make one below."}
          </p>
        )}
        {usable.length > 0 && (
          <div class="row steer-controls">
            <Select
              label="Direction"
              value={direction?.name ?? ""}
              options={[
                ...(direction ? [] : [{ value: "", label: "Choose one" }]),
                ...usable.map(({ name }) => ({ value: name, label: name })),
              ]}
              onChange={(name) => set({ direction: name, layer: -1 })}
            />
            {layers.length > 0 && (
              <Slider
                label="Layer"
                value={at}
                min={0}
                max={layers.length - 1}
                shown={String(layers[at])}
                onInput={(value) => set({ layer: layers[value] as number })}
              />
            )}
            <Slider
              label="Strength: times the direction's own length"
              value={form.strength}
              min={-MOST_STRENGTH}
              max={MOST_STRENGTH}
              step={STRENGTH_STEP}
              shown={significant(form.strength)}
              onInput={(strength) => set({ strength })}
            />
          </div>
        )}
        {direction && <RelativeLength form={form} hook={hook} cache={baseline.cache} />}
        <div class="row steer-controls">
          <TextField
            label="New tokens"
            type="number"
            min={1}
            max={500}
            value={String(form.newTokens)}
            onInput={(value) => value !== "" && set({ newTokens: Number(value) || 1 })}
          />
          <TextField
            label="Temperature"
            type="number"
            min={0}
            step="any"
            value={String(form.temperature)}
            onInput={(value) => value !== "" && set({ temperature: Number(value) || 0 })}
          />
          <TextField
            label="Seed"
            type="number"
            min={0}
            value={String(form.seed)}
            onInput={(value) => value !== "" && set({ seed: Number(value) || 0 })}
          />
        </div>
      </section>
      {form.text !== "" && <Sides baseline={baseline} changed={direction ? changed : null} form={form} hook={hook} />}
      {isReady && (
        <div class="row steer-actions">
          <SavePair baseline={baseline} changed={changed} form={form} />
          <span class="spacer" />
          <CopyAs
            request={{ method: "POST", path: "/v1/runs", body: steered }}
            python={`${pythonClient(location.origin)}\n${pythonCallOf(form, hook)}`}
            cli={commandOf(form, hook)}
          />
        </div>
      )}
      <NewDirection
        model={model}
        taken={new Set(directions.map(({ name }) => name))}
        isOpen={usable.length === 0}
        onMade={(name) => {
          onMade();
          set({ direction: name, layer: -1 });
        }}
      />
    </>
  );
}

function Sides(props: { baseline: Written; changed: Written | null; form: SteerForm; hook: string }) {
  const { baseline, changed, form, hook } = props;
  const where = [hook !== "resid_post" && hook, form.layer >= 0 && `layer ${form.layer}`].filter(Boolean).join(" of ");
  const isBoth = changed !== null && baseline.isDone && changed.isDone;
  const [left, right] = isBoth ? differences(baseline.text, changed.text) : [undefined, undefined];
  return (
    <div class="columns steer-sides">
      <Side title="By itself" written={baseline} pieces={left} />
      {changed && (
        <Side title={`With ${significant(form.strength)} × ${form.direction} at ${where}`} written={changed} pieces={right} />
      )}
    </div>
  );
}

function Side({ title, written, pieces }: { title: string; written: Written; pieces: Piece[] | undefined }) {
  return (
    <section class="card" aria-label={title} aria-busy={!written.isDone && written.error === undefined}>
      <h2>{title}</h2>
      {written.error !== undefined && <ProblemNote error={written.error} />}
      <p class="written steer-text" dir="auto">
        {pieces ? pieces.map(({ text, differs }, i) => (differs ? <mark key={i}>{text}</mark> : text)) : written.text}
        {!written.isDone && written.error === undefined && <span class="soft"> …</span>}
      </p>
      {written.cache && <Link to={href(`/caches/${written.cache}`)}>Its cache</Link>}
    </section>
  );
}

/** Keeps both caches, with tags and labels; without it they expire. */
function SavePair({ baseline, changed, form }: { baseline: Written; changed: Written; form: SteerForm }) {
  const tags = useSignal("steering");
  const saved = useSignal("");
  const key = `${baseline.cache} ${changed.cache}`;
  const save = useAction(async (signal) => {
    for (const [cache, label] of [
      [baseline.cache, "baseline"],
      [changed.cache, `${form.direction} ${form.strength}`],
    ] as const) {
      if (!cache) continue;
      const body = { tags: commaList(tags.value), label, expires_at: null };
      await client.patch("/v1/caches/{id}", { params: { path: { id: cache } }, body, signal });
    }
    saved.value = key;
  });
  if (!baseline.cache || !changed.cache) return <p class="soft">What is written here is kept for an hour unless it is saved.</p>;
  if (saved.value === key) {
    return (
      <p>
        Saved. <Link to={href("/compare", { cache: [baseline.cache, changed.cache] })}>Compare the two</Link>
      </p>
    );
  }
  return (
    <>
      <TextField
        label="Tags"
        value={tags.value}
        onInput={(value) => (tags.value = value)}
        hint="Kept for an hour unless it is saved."
      />
      <button type="button" disabled={save.isRunning} onClick={() => void save.run()}>
        Save the pair
      </button>
      {save.error !== undefined && <ProblemNote error={save.error} />}
    </>
  );
}
