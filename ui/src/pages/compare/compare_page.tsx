/** Two caches layer by layer, many caches with each other, the layers of two sets with each other. */
import type { Cache } from "residuum";
import { CachePicker } from "../../components/cache_picker";
import { CopyAs } from "../../components/copy_as";
import { Choice, Select, TextField } from "../../components/fields";
import { PageHeader } from "../../components/page_header";
import { Empty, Loaded } from "../../components/problem";
import { pythonArguments, pythonClient, pythonOf } from "../../format/snippets";
import { preview } from "../../format/tokens";
import { href, place, setQuery } from "../../router/location";
import { Link } from "../../router/link";
import { client } from "../../server/client";
import { forEach } from "../../server/pool";
import { useResource } from "../../server/resource";
import { type CompareForm, formOf, type Metric, requestOf, SET_METRICS, VECTOR_METRICS } from "./compare_form";
import { Drift, LayersByLayers, Similarity } from "./pictures";
import "./compare.css";

export function ComparePage() {
  const form = formOf(place.value.query);
  const body = requestOf(form);
  const answer = useResource(body ? JSON.stringify(body) : null, (signal) =>
    client.post("/v1/comparisons", { body: body as NonNullable<typeof body>, signal }),
  );
  const names = useNames(form.caches);
  const metrics: readonly Metric[] = form.mode === "layers" ? SET_METRICS : VECTOR_METRICS;
  return (
    <>
      <PageHeader
        title="Compare"
        actions={
          body && (
            <CopyAs
              request={{ method: "POST", path: "/v1/comparisons", body }}
              python={pythonCompare(form)}
              cli={commandOf(form)}
            />
          )
        }
      >
        How alike activations are: of two texts layer by layer, of many texts, or of the layers of two sets.
      </PageHeader>
      <div class="row compare-controls">
        <Choice
          label="What is compared"
          value={form.mode}
          options={[
            { value: "pairs", label: "Layer by layer" },
            { value: "matrix", label: "All with all" },
            { value: "layers", label: "Layers × layers" },
          ]}
          onChange={(mode) => setQuery({ mode: mode === "pairs" ? null : mode, metric: null })}
        />
        <Select
          label="Metric"
          value={form.metric}
          options={metrics.map((value) => ({ value, label: value.replace("_", " ") }))}
          onChange={(metric) => setQuery({ metric })}
        />
        <Select
          label="Position"
          value={form.position}
          options={[
            { value: "last", label: "last token" },
            { value: "mean", label: "mean of all" },
            { value: "stored", label: "the stored one" },
          ]}
          onChange={(position) => setQuery({ position: position === "last" ? null : position })}
        />
      </div>
      <div class="compare">
        <div class="compare-picture">
          {!body ? (
            <Empty title={form.mode === "layers" ? "Name a tag" : "Choose at least two caches"}>
              {form.mode === "layers" ? (
                "The caches with one tag are a set: its layers are compared with each other, or with those of a second set, which may come from another model."
              ) : (
                <>
                  Pick them here, or select them in <Link to={href("/caches")}>the list of caches</Link>.
                </>
              )}
            </Empty>
          ) : (
            <Loaded of={answer} what="the comparison">
              {(found) =>
                form.mode === "pairs" ? (
                  <Drift found={found} metric={form.metric} names={names} />
                ) : form.mode === "matrix" ? (
                  <Similarity found={found} metric={form.metric} names={names} />
                ) : (
                  <LayersByLayers found={found} metric={form.metric} a={form.a} b={form.b || form.a} />
                )
              }
            </Loaded>
          )}
        </div>
        <aside class="card compare-side" aria-label="What is compared">
          {form.mode === "layers" ? (
            <>
              <TextField label="Tag of the first set" value={form.a} onInput={(a) => setQuery({ a }, { replace: true })} />
              <TextField
                label="Tag of the second set (optional)"
                value={form.b}
                onInput={(b) => setQuery({ b }, { replace: true })}
              />
              <p class="soft">CKA compares the arrangement of several rows, so each set needs at least two caches.</p>
            </>
          ) : (
            <>
              <Chosen caches={form.caches} names={names} isPairs={form.mode === "pairs"} />
              <CachePicker label="Add a cache" chosen={form.caches} onPick={(id) => setQuery({ cache: [...form.caches, id] })} />
            </>
          )}
        </aside>
      </div>
    </>
  );
}

function Chosen({ caches, names, isPairs }: { caches: string[]; names: ReadonlyMap<string, string>; isPairs: boolean }) {
  return (
    <ol class="compare-chosen">
      {caches.map((id, index) => (
        <li key={id}>
          <Link to={href(`/caches/${id}`)}>
            <bdi>{names.get(id) ?? id}</bdi>
          </Link>
          {isPairs && index === 0 && caches.length > 1 && <span class="soft"> with each of the others</span>}
          <button
            type="button"
            class="quiet"
            aria-label={`Remove ${names.get(id) ?? id}`}
            onClick={() => setQuery({ cache: caches.filter((other) => other !== id) })}
          >
            ×
          </button>
        </li>
      ))}
    </ol>
  );
}

/** The starts of the texts, by id. */
function useNames(ids: readonly string[]): ReadonlyMap<string, string> {
  const found = useResource(ids.length === 0 ? null : ids.join(), async (signal) => {
    const names = new Map<string, string>();
    await forEach(ids, async (id) => {
      const cache: Cache | undefined = await client
        .get("/v1/caches/{id}", { params: { path: { id } }, signal })
        // One that is gone keeps its id; the comparison says what is wrong.
        .catch(() => undefined);
      if (cache) names.set(id, preview(cache.text ?? cache.tokens.join(""), 44) || id);
    });
    return names;
  });
  return found.value ?? new Map();
}

/** Of two caches the command compares layer by layer, of more all with all. */
function commandOf({ mode, caches, metric, position }: CompareForm): string | undefined {
  if (mode === "layers" || (mode === "pairs") !== (caches.length === 2)) return undefined;
  return `residuum compare ${caches.join(" ")} --metric ${metric}${position === "last" ? "" : ` --position ${position}`}`;
}

function pythonCompare({ mode, caches, a, b, metric, position }: CompareForm): string {
  const options = pythonArguments({ metrics: metric, position: position === "last" ? undefined : position });
  const sets = (tag: string) => ({ tags: [tag] });
  const what =
    mode === "layers" ? [sets(a), b ? sets(b) : undefined] : mode === "matrix" ? [caches] : [caches.slice(0, 1), caches.slice(1)];
  const given = what.filter((one) => one !== undefined).map(pythonOf);
  const call = `client.compare(${[...given, pythonArguments({ mode }), options].join(", ")})`;
  return `${pythonClient(location.origin)}\nfound = ${call}`;
}
