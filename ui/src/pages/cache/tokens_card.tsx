/** The tokens of a cache, coloured by what its activations say of each. */
import type { Cache } from "residuum";
import { diverging, extentOf, type Scale, sequential } from "../../colour/scale";
import { theme } from "../../colour/theme";
import { heldPositions } from "../../components/cache_frame";
import { DataTable, Picture } from "../../components/data_table";
import { Check, Choice, Select, Slider, TextField, optionsOf } from "../../components/fields";
import { Legend } from "../../components/legend";
import { Loaded } from "../../components/problem";
import { TokenStrip } from "../../components/token_strip";
import { type HookLayers, vectorHooks } from "../../format/hooks";
import { exact, significant } from "../../format/numbers";
import { visible } from "../../format/tokens";
import { queryChoice, queryInteger, queryText, setQuery } from "../../router/location";
import { readySaes, useSaes } from "../../server/catalogue";
import { client } from "../../server/client";
import { useResource } from "../../server/resource";
import { type Measure, type TokenMeasure, useTokenValues } from "./token_values";

const UNITS: Record<Measure, string> = {
  norm: "length of the row",
  similarity: "cosine",
  projection: "along the direction",
  feature: "activation",
};

export function TokensCard({ cache }: { cache: Cache }) {
  const hooks = vectorHooks(cache.hooks).filter(({ layers }) => layers.length > 0);
  const held = heldPositions(cache);
  if (hooks.length === 0 || held.length === 0) {
    return (
      <section class="card" aria-label="Tokens">
        <TokenStrip label="Tokens" tokens={cache.tokens.map((text, i) => ({ text, id: cache.token_ids[i] as number }))} />
        <p class="soft tokens-note">
          {held.length === 0
            ? "It holds a mean over positions, so single tokens have no rows."
            : "It holds no rows of single tokens."}
        </p>
      </section>
    );
  }
  return <Coloured cache={cache} hooks={hooks} held={held} />;
}

function Coloured({ cache, hooks, held }: { cache: Cache; hooks: HookLayers[]; held: number[] }) {
  const saes = readySaes(useSaes().value);
  const directions = useResource("directions", async (signal) => {
    const query = { limit: 200 };
    return (await client.get("/v1/directions", { params: { query }, signal })).items;
  });
  const usable = (directions.value ?? []).filter(({ width, hook }) => width === cache.d_model && hook.includes("resid"));
  const measure = queryChoice<Measure>("colour", ["norm", "similarity", "projection", "feature"]);
  const hook = hooks.find(({ short }) => short === queryText("hook")) ?? (hooks[0] as HookLayers);
  const layers = hook.layers.map(({ layer }) => layer);
  const at = Math.max(0, layers.indexOf(queryInteger("layer", layers[Math.floor(layers.length / 2)] ?? 0)));
  const token = queryInteger("token", held.at(-1) ?? 0);
  const what: TokenMeasure = {
    measure,
    hook: hook.layers[at]?.full ?? "",
    layer: layers[at] ?? 0,
    token,
    direction: queryText("direction") || (usable[0]?.name ?? ""),
    sae: queryText("sae") || (saes[0]?.id ?? ""),
    feature: queryInteger("feature", 0),
  };
  const values = useTokenValues(cache, held, what);
  const options = [
    { value: "norm" as const, label: "Norm" },
    { value: "similarity" as const, label: "Similarity" },
    ...(usable.length > 0 || measure === "projection" ? [{ value: "projection" as const, label: "Projection" }] : []),
    ...(saes.length > 0 || measure === "feature" ? [{ value: "feature" as const, label: "Feature" }] : []),
  ];
  return (
    <>
      <div class="row tokens-controls">
        <Choice
          label="Colour"
          value={measure}
          options={options}
          onChange={(value) => setQuery({ colour: value === "norm" ? null : value })}
        />
        {measure !== "feature" && (
          <>
            <Select
              label="Hook"
              value={hook.short}
              options={optionsOf(hooks.map(({ short }) => short))}
              onChange={(value) => setQuery({ hook: value })}
            />
            <Slider
              label="Layer"
              value={at}
              min={0}
              max={layers.length - 1}
              shown={String(layers[at])}
              onInput={(value) => setQuery({ layer: layers[value] }, { replace: true })}
            />
          </>
        )}
        {measure === "projection" && (
          <Select
            label="Direction"
            value={what.direction}
            options={optionsOf(usable.map(({ name }) => name))}
            onChange={(value) => setQuery({ direction: value })}
          />
        )}
        {measure === "feature" && (
          <>
            <Select
              label="Autoencoder"
              value={what.sae}
              options={optionsOf(saes.map(({ id }) => id))}
              onChange={(value) => setQuery({ sae: value })}
            />
            <TextField
              label="Feature"
              type="number"
              min={0}
              value={String(what.feature)}
              onInput={(value) => setQuery({ feature: value }, { replace: true })}
            />
          </>
        )}
      </div>
      <Loaded of={values} what="tokens">
        {(found) => <Strip cache={cache} held={held} values={found} what={what} />}
      </Loaded>
    </>
  );
}

/** First tokens are often attention sinks, with rows many times as long as all others. */
function scaleOf(values: Float64Array, measure: Measure, leavesOutFirst: boolean): Scale {
  const shown = leavesOutFirst ? values.subarray(1) : values;
  const { min, max } = extentOf(shown);
  if (measure === "similarity") return diverging(1, theme.value);
  if (measure === "projection") return diverging(Math.max(-min, max), theme.value);
  return sequential(measure === "feature" ? 0 : min, max, theme.value);
}

function Strip(props: { cache: Cache; held: number[]; values: Float64Array; what: TokenMeasure }) {
  const { cache, held, values, what } = props;
  const canLeaveOut = what.measure !== "similarity" && held[0] === 0 && held.length > 2;
  const leavesOutFirst = canLeaveOut && queryText("first") !== "in";
  const scale = scaleOf(values, what.measure, leavesOutFirst);
  const describe = (position: number) => {
    const value = values[position] ?? Number.NaN;
    const text = `${position}: ${visible(cache.tokens[position] ?? "")}`;
    return Number.isNaN(value) ? `${text}\nnot stored` : `${text}\n${UNITS[what.measure]} ${significant(value)}`;
  };
  const title =
    what.measure === "feature"
      ? `Feature ${what.feature} of ${what.sae}`
      : what.measure === "similarity"
        ? `Cosine with ${visible(cache.tokens[what.token] ?? "")} (position ${what.token})`
        : what.measure === "projection"
          ? `Projection on ${what.direction}`
          : `Norm at layer ${what.layer}`;
  return (
    <Picture
      name="tokens"
      title={title}
      note={
        what.measure === "similarity"
          ? "Choose a token to compare the others with."
          : leavesOutFirst
            ? "The first token is left out of the scale: it is often an attention sink, whose row is much longer than all others."
            : undefined
      }
      controls={
        <>
          {canLeaveOut && (
            <Check
              label="First token in the scale"
              checked={!leavesOutFirst}
              onChange={(checked) => setQuery({ first: checked ? "in" : null }, { replace: true })}
            />
          )}
          <Legend scale={scale} unit={UNITS[what.measure]} />
        </>
      }
      picture={
        <TokenStrip
          label={`Tokens, coloured: ${title}`}
          tokens={cache.tokens.map((text, i) => ({ text, id: cache.token_ids[i] as number }))}
          values={values}
          scale={scale}
          selected={new Set(what.measure === "similarity" ? [what.token] : [])}
          {...(what.measure === "similarity" && {
            onSelect: (position: number) => {
              if (held.includes(position)) setQuery({ token: position }, { replace: true });
            },
          })}
          describe={describe}
        />
      }
      table={() => (
        <DataTable
          caption={title}
          columns={["Position", "Token", "Id", UNITS[what.measure]]}
          isNumber={(column) => column !== 1}
          length={cache.n_tokens}
          row={(i) => [
            i,
            visible(cache.tokens[i] ?? ""),
            cache.token_ids[i],
            Number.isNaN(values[i]) ? "not stored" : exact(values[i]),
          ]}
        />
      )}
    />
  );
}
