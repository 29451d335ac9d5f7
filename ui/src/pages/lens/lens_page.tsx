/** What the model would predict if it stopped after each layer. */
import { useRef } from "preact/hooks";
import type { Cache } from "residuum";
import { CacheFrame, heldLayers, heldPositions, useCache } from "../../components/cache_frame";
import { CopyAs } from "../../components/copy_as";
import { Select, TextField, optionsOf } from "../../components/fields";
import { Empty, ProblemNote } from "../../components/problem";
import { pythonArguments, pythonClient, shellWord } from "../../format/snippets";
import { queryChoice, queryInteger, queryText, setQuery } from "../../router/location";
import { client } from "../../server/client";
import { useResource } from "../../server/resource";
import type { PageProps } from "../routes";
import { Attribution } from "./attribution";
import { CaptureParts } from "./capture_parts";
import { CellDetails } from "./cell_details";
import { FollowedToken } from "./followed_token";
import { LensGrid } from "./lens_grid";
import { type Lens, MEASURES, type Measure } from "./lens_values";
import "./lens.css";

const HOOKS = ["resid_post", "resid_mid", "resid_pre"] as const;
const TOP_K = 10;
/** Positions of a longer text are shown in windows of this many: each cell is a pass through the unembedding. */
const WINDOW = 64;

export function LensPage({ params }: PageProps) {
  const id = params.id ?? "";
  const cache = useCache(id);
  return (
    <CacheFrame id={id} cache={cache}>
      {(found) => <LensOf cache={found} />}
    </CacheFrame>
  );
}

/** A token as the address has it: an id with `#` before it, or a text. */
export function tokenRef(text: string): number | string {
  return /^#\d+$/.test(text) ? Number(text.slice(1)) : text;
}

function LensOf({ cache }: { cache: Cache }) {
  const hook = queryChoice("hook", HOOKS);
  const layers = heldLayers(cache, `hook_${hook}`);
  const held = heldPositions(cache);
  const first = Math.min(queryInteger("first", 0), Math.max(0, held.length - 1));
  const positions = held.slice(first, first + WINDOW);
  const follow = queryText("follow");
  const colour = queryChoice<Measure>("colour", ["probability", "entropy", "kl", "followed", "rank"]);
  const measure = follow || (colour !== "followed" && colour !== "rank") ? colour : "probability";
  const body = {
    hook,
    top_k: TOP_K,
    ...(held.length > positions.length && { positions }),
    ...(follow && { tokens: [tokenRef(follow)] }),
  };
  const lens = useResource(layers.length === 0 ? null : JSON.stringify([cache.id, body]), (signal) =>
    client.post("/v1/caches/{id}/lens", { params: { path: { id: cache.id } }, body, signal }),
  );
  // While another token is followed, and if it is refused, the grid stays: it is the same but for that token.
  const grid = JSON.stringify([cache.id, hook, positions]);
  const last = useRef<{ grid: string; value: Lens } | null>(null);
  if (lens.value) last.current = { grid, value: lens.value };
  const shown = lens.value ?? (last.current?.grid === grid ? last.current.value : undefined);
  if (layers.length === 0) {
    return (
      <Empty title={`This cache has no ${hook}`}>
        The lens reads the residual stream. <CaptureParts cache={cache} />
      </Empty>
    );
  }
  return (
    <>
      <div class="row lens-controls">
        <Select
          label="Residual stream"
          value={hook}
          options={optionsOf(HOOKS)}
          onChange={(value) => setQuery({ hook: value === "resid_post" ? null : value })}
        />
        <Select
          label="Colour"
          value={measure}
          options={MEASURES.filter(({ value }) => follow || (value !== "followed" && value !== "rank"))}
          onChange={(value) => setQuery({ colour: value === "probability" ? null : value })}
        />
        <FollowField value={follow} />
        {held.length > WINDOW && (
          <TextField
            label={`First of ${WINDOW} positions`}
            type="number"
            min={0}
            max={held.length - 1}
            value={String(first)}
            onInput={(value) => setQuery({ first: value }, { replace: true })}
          />
        )}
        <span class="spacer" />
        <CopyAs
          request={{ method: "POST", path: `/v1/caches/${cache.id}/lens`, body }}
          python={`${pythonClient(location.origin)}\nlens = client.cache("${cache.id}").logit_lens(${pythonArguments({ tokens: body.tokens, positions: body.positions, top_k: TOP_K, hook: hook === "resid_post" ? undefined : hook })})`}
          cli={commandOf(cache, held, positions, hook, follow)}
        />
      </div>
      {lens.error !== undefined && <ProblemNote error={lens.error} onRetry={lens.reload} />}
      {shown ? (
        <LensViews
          cache={cache}
          lens={shown}
          measure={lens.value || (measure !== "followed" && measure !== "rank") ? measure : "probability"}
          follow={lens.error === undefined ? follow : ""}
          isFollowed={lens.value !== undefined}
        />
      ) : (
        lens.isLoading && <p class="loading">Loading the lens …</p>
      )}
    </>
  );
}

/** The same on the command line, whose default is the last position. */
function commandOf(cache: Cache, held: number[], positions: number[], hook: string, follow: string): string {
  const words = [`residuum lens ${cache.id}`, `--top-k ${TOP_K}`];
  if (held.length > 1) words.push(`--positions ${held.length > positions.length ? positions.join(",") : "all"}`);
  if (hook !== "resid_post") words.push(`--hook ${hook}`);
  if (follow) words.push(`--token ${shellWord(follow.replace(/^#(\d+)$/, "id:$1"))}`);
  return words.join(" ");
}

function FollowField({ value }: { value: string }) {
  return (
    <form
      class="lens-follow"
      onSubmit={(event) => {
        event.preventDefault();
        const text = new FormData(event.currentTarget).get("token");
        setQuery({ follow: typeof text === "string" ? text : null });
      }}
    >
      <label class="field">
        <span>Follow a token</span>
        <input key={value} name="token" class="mono" defaultValue={value} placeholder=" Paris, or #7042" />
      </label>
      <button type="submit">Follow</button>
      {value && (
        <button type="button" class="quiet" onClick={() => setQuery({ follow: null, colour: null })}>
          Stop
        </button>
      )}
    </form>
  );
}

function LensViews(props: { cache: Cache; lens: Lens; measure: Measure; follow: string; isFollowed: boolean }) {
  const { cache, lens, measure, follow, isFollowed } = props;
  const nColumns = lens.positions.length;
  const given = lens.positions.indexOf(queryInteger("position", -1));
  const column = given < 0 ? nColumns - 1 : given;
  const layer = lens.layers.indexOf(queryInteger("layer", -1));
  const index = layer < 0 ? lens.layers.length - 1 : layer;
  return (
    <>
      <LensGrid lens={lens} measure={measure} selected={{ index, column }} />
      <div class="columns lens-details">
        <CellDetails lens={lens} index={index} column={column} />
        <FollowedToken lens={lens} column={column} follow={isFollowed ? follow : ""} />
      </div>
      <Attribution cache={cache} lens={lens} column={column} follow={follow} />
    </>
  );
}
