/** The stored caches, or tokens, that are nearest to a text, a cache or a direction. */
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { CopyAs } from "../../components/copy_as";
import { Choice, Select, Slider, TextArea, TextField, optionsOf } from "../../components/fields";
import { PageHeader } from "../../components/page_header";
import { Empty, Loaded, ProblemNote } from "../../components/problem";
import { href, setQuery } from "../../router/location";
import { Link } from "../../router/link";
import { readyModels, useModels } from "../../server/catalogue";
import { client } from "../../server/client";
import { type Resource, useResource, pause } from "../../server/resource";
import { ConditionFields } from "../map/condition_fields";
import { bodyOf, queryOf } from "../../server/conditions";
import { type HookLayers, layerNear, vectorHooks } from "../../format/hooks";
import type { PageProps } from "../routes";
import { Hits } from "./hits";
import {
  commandOf,
  COUNTS,
  METRICS,
  pythonCode,
  readView,
  requestOf,
  type SearchPlan,
  type SearchView,
  type Source,
} from "./request";
import "./search.css";

/** What can be searched: hooks with their layers, of one model. */
interface Searchable {
  model: string;
  hooks: readonly HookLayers[];
  /** The text of the cache that is searched for. */
  text?: string | undefined;
}

export function SearchPage(_: PageProps) {
  const view = readView();
  const models = useModels();
  const names = readyModels(models.value).map(({ id }) => id);
  const model = names.find((name) => name === view.conditions.model) ?? names[0];
  const isKnown = view.by === "text" ? model !== undefined : view.what !== "";
  const key = isKnown ? JSON.stringify([view.by, view.by === "text" ? model : view.what, queryOf(view.conditions)]) : null;
  const searchable = useResource(key, (signal) => searchableOf(view, model ?? "", signal));
  return (
    <div class="search-page">
      <PageHeader title="Search">
        The stored caches, or the tokens within them, whose activations are nearest to those of a text, a cache or a direction.
      </PageHeader>
      <div class="card search-form">
        <SourceFields view={view} />
        <div class="row">
          {view.by === "text" && names.length > 1 && model && (
            <Select
              label="Model"
              value={model}
              options={optionsOf(names)}
              onChange={(value) => setQuery({ model: value, hook: null, layer: null })}
            />
          )}
          {searchable.value && <HookFields view={view} hooks={searchable.value.hooks} />}
          <Choice
            label="What is ranked"
            value={view.over}
            options={[
              { value: "caches", label: "Caches" },
              { value: "positions", label: "Tokens" },
            ]}
            onChange={(value) => setQuery({ over: value })}
          />
          <Choice
            label="Metric"
            value={view.metric}
            options={(["cosine", "dot", "euclidean"] as const).map((value) => ({
              value,
              label: METRICS[value].label,
            }))}
            onChange={(value) => setQuery({ metric: value })}
          />
          {view.by !== "direction" && (
            <Select
              label="Position"
              value={view.position}
              options={[
                { value: "usual", label: "last token, or the only row" },
                { value: "last", label: "last token" },
                { value: "mean", label: "mean of the tokens" },
              ]}
              onChange={(value) => setQuery({ position: value === "usual" ? null : value })}
            />
          )}
          <Select
            label="Results"
            value={String(view.k)}
            options={[...new Set([...COUNTS, view.k])].map((k) => ({ value: String(k), label: String(k) }))}
            onChange={(value) => setQuery({ k: value })}
          />
        </div>
        <details open={JSON.stringify(bodyOf({ ...view.conditions, model: "" })) !== "{}"}>
          <summary>Only some caches</summary>
          <div class="row">
            <ConditionFields conditions={view.conditions} />
          </div>
        </details>
      </div>
      {models.error !== undefined && <ProblemNote error={models.error} onRetry={models.reload} />}
      {models.value && view.by === "text" && !model && (
        <Empty title="No model is ready">
          A text has to be read by a model. <Link to={href("/server")}>Load one</Link>, or search by a cache.
        </Empty>
      )}
      {isKnown && <Results searchable={searchable} view={view} />}
    </div>
  );
}

/** The hooks that can be compared: of text those of the newest cache that fits, of a cache its own. */
async function searchableOf(view: SearchView, model: string, signal: AbortSignal): Promise<Searchable> {
  if (view.by === "direction") {
    const path = { direction: view.what };
    const { hook, vectors, model: of } = await client.get("/v1/directions/{direction}", { params: { path }, signal });
    const layers = [...new Set((vectors ?? []).map(({ layer }) => layer).filter((layer) => typeof layer === "number"))];
    return { model: of ?? "", hooks: [{ short: hook, layers: layers.map((layer) => ({ layer, full: hook })) }] };
  }
  if (view.by === "cache") {
    const cache = await client.get("/v1/caches/{id}", { params: { path: { id: view.what } }, signal });
    return { model: cache.model, hooks: vectorHooks(cache.hooks), text: cache.text ?? cache.tokens.join("") };
  }
  const query = { ...queryOf({ ...view.conditions, model }), limit: 1, fields: "id,hooks" };
  const { items } = await client.get("/v1/caches", { params: { query }, signal });
  return { model, hooks: vectorHooks(items[0]?.hooks ?? []) };
}

const BY: Record<Source, string> = { text: "A text", cache: "A cache", direction: "A direction" };

function SourceFields({ view }: { view: SearchView }) {
  const { by, what } = view;
  const draft = useSignal(what);
  useEffect(() => {
    draft.value = what;
  }, [by, what]);
  const submit = () => {
    const value = by === "text" ? draft.peek() : draft.peek().trim();
    setQuery({ text: null, cache: null, direction: null, [by]: value, by: null });
  };
  return (
    <form
      class="search-source"
      onSubmit={(event) => {
        event.preventDefault();
        submit();
      }}
    >
      <Choice
        label="Search by"
        value={by}
        options={(["text", "cache", "direction"] as const).map((value) => ({ value, label: BY[value] }))}
        onChange={(value) => setQuery({ text: null, cache: null, direction: null, by: value, hook: null, layer: null })}
      />
      {by === "text" ? (
        <div
          class="search-text"
          onKeyDown={(event) => {
            if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
              event.preventDefault();
              submit();
            }
          }}
        >
          <TextArea
            label="Text"
            rows={2}
            value={draft.value}
            placeholder="The Louvre is in the city of"
            onInput={(value) => (draft.value = value)}
          />
        </div>
      ) : (
        <TextField
          label={by === "cache" ? "Id of the cache" : "Name or id of the direction"}
          value={draft.value}
          mono
          onInput={(value) => (draft.value = value)}
        />
      )}
      <button type="submit" class="primary" disabled={draft.value.trim() === ""}>
        Search
      </button>
    </form>
  );
}

/** The hook and the layer that are searched: those of the address where they exist. */
function chosenOf(view: SearchView, hooks: readonly HookLayers[]) {
  const hook = hooks.find(({ short }) => short === view.hook) ?? hooks[0];
  const layers = hook?.layers.map(({ layer }) => layer) ?? [];
  return { hook, layers, layer: layerNear(layers, view.layer) };
}

function HookFields({ view, hooks }: { view: SearchView; hooks: readonly HookLayers[] }) {
  const { hook, layers, layer } = chosenOf(view, hooks);
  if (!hook) return null;
  return (
    <>
      <Select
        label="Hook"
        value={hook.short}
        options={optionsOf(hooks.map(({ short }) => short))}
        onChange={(value) => setQuery({ hook: value })}
      />
      {layers.length > 1 && (
        <Slider
          label="Layer"
          value={layers.indexOf(layer ?? -1)}
          min={0}
          max={layers.length - 1}
          shown={String(layer)}
          onInput={(index) => setQuery({ layer: layers[index] as number }, { replace: true })}
        />
      )}
    </>
  );
}

function Results({ searchable, view }: { searchable: Resource<Searchable>; view: SearchView }) {
  return (
    <Loaded of={searchable} what="hooks">
      {(value) => {
        const { hook, layer } = chosenOf(view, value.hooks);
        if (!hook) return <NothingStored model={value.model} view={view} />;
        if (view.what === "") {
          return (
            <Empty title="What are you looking for?">
              Type a text: the model reads it now, and nothing of it is kept. Every stored cache of {value.model} is compared with
              it.
            </Empty>
          );
        }
        return <Answer plan={{ ...view, hook: hook.short, layer, model: value.model }} text={value.text} />;
      }}
    </Loaded>
  );
}

function NothingStored({ model, view }: { model: string; view: SearchView }) {
  const isFiltered = JSON.stringify(bodyOf({ ...view.conditions, model: "" })) !== "{}";
  if (isFiltered) return <Empty title="No cache fits">Take away a condition.</Empty>;
  return (
    <Empty title={`Nothing of ${model || "this model"} is stored yet`}>
      <Link to={href("/")}>Capture some texts</Link> first: the last position of every layer is enough to find caches; capture all
      positions to find tokens within them.
    </Empty>
  );
}

function Answer({ plan, text }: { plan: SearchPlan; text: string | undefined }) {
  const request = requestOf(plan);
  const found = useResource(JSON.stringify(request), async (signal) => {
    await pause(120, signal);
    return await client.post("/v1/search", { body: request, signal });
  });
  return (
    <section class="search-results" aria-label="Results" aria-busy={found.isLoading}>
      {text && (
        <p class="soft">
          Nearest to <bdi>{text}</bdi>
        </p>
      )}
      <Loaded of={found} what="the nearest">
        {(answer) => <Hits answer={answer} plan={plan} />}
      </Loaded>
      <CopyAs
        request={{ method: "POST", path: "/v1/search", body: request }}
        python={pythonCode(plan, location.origin)}
        cli={commandOf(plan)}
      />
    </section>
  );
}
