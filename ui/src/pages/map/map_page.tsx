/** Caches as points: the first principal components of their activations at a layer. */
import { useRef } from "preact/hooks";
import { Check, Choice, Select, Slider, optionsOf } from "../../components/fields";
import { PageHeader } from "../../components/page_header";
import { Empty, Loaded, ProblemNote } from "../../components/problem";
import { counted } from "../../format/numbers";
import { href, queryChoice, queryInteger, queryList, queryText, setQuery } from "../../router/location";
import { Link } from "../../router/link";
import { client } from "../../server/client";
import { useResource, pause } from "../../server/resource";
import type { PageProps } from "../routes";
import { ConditionFields } from "./condition_fields";
import { type Conditions, NO_CONDITIONS, readConditions } from "../../server/conditions";
import { type Item, listCaches, type Listed, loadMap, type Mapped, type MapRequest, MOST_CACHES } from "./data";
import { type HookLayers, layerNear, vectorHooks } from "../../format/hooks";
import { MapPicture } from "./map_picture";
import "./map.css";

/** What a change of the caches or of the layer makes meaningless. */
const RESET = ["zoom"];

export function MapPage(_: PageProps) {
  const ids = queryList("cache");
  const conditions = ids.length > 0 ? { ...NO_CONDITIONS, model: queryText("model") } : readConditions();
  const key = JSON.stringify([ids, { ...conditions, model: "" }]);
  const listed = useResource(key, (signal) => listCaches(ids, { ...conditions, model: "" }, signal));
  return (
    <div class="map-page">
      <PageHeader title="Map">
        Each point is a cache, placed by the two directions in which the activations of these caches differ most (their principal
        components).
      </PageHeader>
      <section class="card map-choice" aria-label="Caches">
        {ids.length > 0 ? (
          <div class="row">
            <span>{counted(ids.length, "chosen cache")}</span>
            <button type="button" class="quiet" onClick={() => setQuery({ cache: null, zoom: null })}>
              Choose by tags and labels instead
            </button>
          </div>
        ) : (
          <div class="row">
            <ConditionFields conditions={conditions} reset={RESET} />
          </div>
        )}
      </section>
      <Loaded of={listed} what="caches">
        {(value) => <Chosen listed={value} conditions={conditions} ids={ids} />}
      </Loaded>
    </div>
  );
}

/** Names of the models of some caches, the most frequent first. */
function modelsOf(items: readonly Item[]): string[] {
  const counts = new Map<string, number>();
  for (const { model } of items) counts.set(model, (counts.get(model) ?? 0) + 1);
  return [...counts.keys()].sort((a, b) => (counts.get(b) as number) - (counts.get(a) as number));
}

function Chosen({ listed, conditions, ids }: { listed: Listed; conditions: Conditions; ids: readonly string[] }) {
  const models = modelsOf(listed.items);
  const model = models.find((name) => name === conditions.model) ?? models[0];
  const items = listed.items.filter((item) => item.model === model);
  const sample = items[0]?.id ?? null;
  const hooks = useResource(sample && `hooks of ${sample}`, async (signal) => {
    const cache = await client.get("/v1/caches/{id}", { params: { path: { id: sample as string } }, signal });
    return { hooks: vectorHooks(cache.hooks), isMean: typeof cache.positions === "object" && "mean" in cache.positions };
  });
  if (!model) return <NothingFound isFiltered={ids.length > 0 || JSON.stringify(conditions) !== JSON.stringify(NO_CONDITIONS)} />;
  return (
    <Loaded of={hooks} what="hooks">
      {({ hooks: found, isMean }) => (
        <Placed
          items={items}
          listed={listed}
          hooks={found}
          isMean={isMean}
          conditions={{ ...conditions, model }}
          models={models}
          ids={ids}
        />
      )}
    </Loaded>
  );
}

function NothingFound({ isFiltered }: { isFiltered: boolean }) {
  if (isFiltered) return <Empty title="No cache fits">Take away a condition.</Empty>;
  return (
    <Empty title="There is nothing to map yet">
      <Link to={href("/")}>Capture some texts</Link>, best a few dozen in two groups that you label differently: where the groups
      come apart, the model tells them apart.
    </Empty>
  );
}

interface PlacedProps {
  items: readonly Item[];
  listed: Listed;
  hooks: readonly HookLayers[];
  isMean: boolean;
  conditions: Conditions;
  models: readonly string[];
  ids: readonly string[];
}

function Placed({ items, listed, hooks, isMean, conditions, models, ids }: PlacedProps) {
  const hook = hooks.find(({ short }) => short === queryText("hook")) ?? hooks[0];
  const layers = hook?.layers.map(({ layer }) => layer) ?? [];
  const wanted = queryInteger("layer", -1);
  const layer = layerNear(layers, wanted >= 0 ? wanted : undefined);
  const position = queryText("position") === "" && isMean ? "mean" : queryChoice("position", ["last", "mean"]);
  const normalize = queryText("normalize") === "true";
  const full = hook?.layers.find((one) => one.layer === layer)?.full ?? hook?.short ?? "";
  const request: MapRequest = {
    ids: items.map(({ id }) => id),
    hook: hook?.short ?? "",
    layer,
    full,
    position,
    normalize,
    conditions,
  };
  const mapped = useResource(hook ? JSON.stringify(request) : null, async (signal) => {
    await pause(120, signal);
    return await loadMap(request, signal);
  });
  // While the next layer is loaded, the last one stays in sight.
  const last = useRef<{ mapped: Mapped; request: MapRequest } | null>(null);
  if (mapped.value) last.current = { mapped: mapped.value, request };
  const shown = mapped.value ? { mapped: mapped.value, request } : last.current;
  if (!hook) return <Empty title="These caches have no hook with vectors">Capture the residual stream, for example.</Empty>;
  const index = layers.indexOf(layer ?? -1);
  return (
    <>
      <div class="row map-controls">
        {models.length > 1 && (
          <Select
            label="Model"
            value={conditions.model}
            options={optionsOf(models)}
            onChange={(value) => setQuery({ model: value, zoom: null, hook: null, layer: null })}
          />
        )}
        <Select
          label="Hook"
          value={hook.short}
          options={optionsOf(hooks.map(({ short }) => short))}
          onChange={(value) => setQuery({ hook: value === hooks[0]?.short ? null : value, zoom: null })}
        />
        {layers.length > 1 && (
          <Slider
            label="Layer"
            value={index}
            min={0}
            max={layers.length - 1}
            shown={String(layer)}
            onInput={(to) => setQuery({ layer: layers[to] as number, zoom: null }, { replace: true })}
          />
        )}
        <Choice
          label="Position"
          value={position}
          options={[
            { value: "last", label: "Last token" },
            { value: "mean", label: "Mean of tokens" },
          ]}
          onChange={(value) => setQuery({ position: value, zoom: null })}
        />
        <Check
          label="Unit length"
          checked={normalize}
          onChange={(on) => setQuery({ normalize: on ? "true" : null, zoom: null })}
        />
      </div>
      {mapped.error !== undefined && <ProblemNote error={mapped.error} onRetry={mapped.reload} />}
      {shown ? (
        <MapPicture
          items={items}
          mapped={shown.mapped}
          request={shown.request}
          isStale={mapped.value === undefined && mapped.error === undefined}
          conditions={conditions}
          chosen={ids}
        />
      ) : (
        mapped.isLoading && <div class="picture map-wait loading">Computing the map …</div>
      )}
      {listed.total > listed.items.length && (
        <p class="soft">
          The newest {MOST_CACHES} of {listed.total} caches are on the map: narrow it with a tag, a label or a run.
        </p>
      )}
    </>
  );
}
