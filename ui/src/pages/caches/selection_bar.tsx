/** What can be done with the selected caches, and with all that match. */
import { useSignal } from "@preact/signals";
import { queryString } from "residuum";
import { Confirm, Dialog } from "../../components/dialog";
import { TextField } from "../../components/fields";
import { ProblemNote } from "../../components/problem";
import { count, counted } from "../../format/numbers";
import { href } from "../../router/location";
import { Link } from "../../router/link";
import { client } from "../../server/client";
import { forEach } from "../../server/pool";
import { download } from "../../server/download";
import { useAction } from "../../server/resource";
import { type CacheFilter, type conditionsOf, mapQuery } from "./filter";

interface Props {
  ids: string[];
  filter: CacheFilter;
  conditions: ReturnType<typeof conditionsOf>;
  total: number | undefined;
  isExact: boolean;
  onClear: () => void;
  onChange: () => void;
}

/** Caches that fit an address; the map and the comparison take a filter for more. */
const MOST_IN_ADDRESS = 200;

export function SelectionBar({ ids, filter, conditions, total, isExact, onClear, onChange }: Props) {
  // Where they are not counted to the end, no number is promised.
  const matching = isExact ? counted(total ?? 0, "cache") : "all caches";
  const dialog = useSignal<"tag" | "delete" | "delete all" | null>(null);
  const progress = useSignal(0);
  const said = useSignal("");
  const each = async (signal: AbortSignal, act: (id: string) => Promise<unknown>) => {
    progress.value = 0;
    try {
      await forEach(ids, async (id) => {
        signal.throwIfAborted();
        await act(id);
        progress.value++;
      });
    } finally {
      onChange();
    }
  };
  const act = useAction(async (signal, what: "pin" | "unpin" | "delete" | { add: string; remove: string }) => {
    await each(signal, async (id) => {
      const params = { path: { id } };
      if (what === "delete") return await client.delete("/v1/caches/{id}", { params, signal });
      if (what === "pin" || what === "unpin")
        return await client.patch("/v1/caches/{id}", { params, body: { pinned: what === "pin" }, signal });
      const { tags } = await client.get("/v1/caches/{id}", { params, signal });
      const next = new Set(tags);
      if (what.add) next.add(what.add);
      next.delete(what.remove);
      return await client.patch("/v1/caches/{id}", { params, body: { tags: [...next] }, signal });
    });
    return true;
  });
  const all = useAction(async (signal, what: "delete" | "export") => {
    if (what === "export") return await download(`/v1/export${exportQuery(conditions)}`, "residuum-export.safetensors", signal);
    const { deleted, kept_pinned: kept } = await client.delete("/v1/caches", { params: { query: conditions }, signal });
    said.value = `${counted(deleted, "cache")} deleted${kept > 0 ? `, ${count(kept)} pinned kept` : ""}.`;
    onChange();
    return undefined;
  });
  const hasConditions = Object.keys(conditions).length > 0;
  const close = () => {
    dialog.value = null;
  };
  const onMap = mapQuery(filter);
  const linked = { cache: ids.slice(0, MOST_IN_ADDRESS) };
  return (
    <div class="selection-bar" role="region" aria-label="Selected caches">
      {ids.length > 0 ? (
        <>
          <strong>{counted(ids.length, "cache")} selected</strong>
          {ids.length >= 2 && ids.length <= MOST_IN_ADDRESS && (
            <Link class="button" to={href("/compare", ids.length === 2 ? linked : { ...linked, mode: "matrix" })}>
              Compare
            </Link>
          )}
          {ids.length >= 3 && ids.length <= MOST_IN_ADDRESS && (
            <Link class="button" to={href("/map", linked)}>
              Map
            </Link>
          )}
          <button type="button" onClick={() => (dialog.value = "tag")}>
            Tag
          </button>
          <button type="button" onClick={() => void act.run("pin")}>
            Pin
          </button>
          <button type="button" onClick={() => void act.run("unpin")}>
            Unpin
          </button>
          <button type="button" class="danger" onClick={() => (dialog.value = "delete")}>
            Delete
          </button>
          <button type="button" class="quiet" onClick={onClear}>
            Clear
          </button>
          {act.isRunning && (
            <span class="soft">
              {count(progress.value)} of {count(ids.length)} …
            </span>
          )}
        </>
      ) : (
        hasConditions &&
        total !== undefined &&
        total > 0 && (
          <>
            <span class="soft">{isExact ? `All ${matching}` : "All"} that match:</span>
            {onMap && (
              <Link class="button" to={href("/map", onMap)}>
                Map
              </Link>
            )}
            <button
              type="button"
              disabled={all.isRunning}
              title="The residual stream at the last position, or the hook of the filter, with the labels"
              onClick={() => void all.run("export")}
            >
              Export
            </button>
            <button type="button" class="danger" onClick={() => (dialog.value = "delete all")}>
              Delete all
            </button>
          </>
        )
      )}
      <output class="soft">{said.value}</output>
      {act.error !== undefined && <ProblemNote error={act.error} />}
      {all.error !== undefined && <ProblemNote error={all.error} />}
      {dialog.value === "delete" && (
        <Confirm
          title="Delete the selected caches?"
          action={`Delete ${counted(ids.length, "cache")}`}
          onConfirm={() => void act.run("delete").then((done) => done && onClear())}
          onClose={close}
        >
          <p>Their activations are deleted. This cannot be undone.</p>
        </Confirm>
      )}
      {dialog.value === "delete all" && (
        <Confirm
          title="Delete all caches that match?"
          action={`Delete ${matching}`}
          onConfirm={() => void all.run("delete")}
          onClose={close}
        >
          <p>
            {isExact ? `All ${matching}` : "All caches"} that match the filter are deleted, also those that are not in sight
            {conditions.pinned ? "" : "; pinned ones are kept"}. This cannot be undone.
          </p>
        </Confirm>
      )}
      {dialog.value === "tag" && (
        <TagDialog n={ids.length} onClose={close} onSave={(add, remove) => void act.run({ add, remove })} />
      )}
    </div>
  );
}

function exportQuery(conditions: Props["conditions"]): string {
  return queryString({ ...conditions, format: "safetensors", position: "last" });
}

function TagDialog({ n, onClose, onSave }: { n: number; onClose: () => void; onSave: (add: string, remove: string) => void }) {
  const add = useSignal("");
  const remove = useSignal("");
  return (
    <Dialog title={`Tags of ${counted(n, "cache")}`} onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          onSave(add.value.trim(), remove.value.trim());
          onClose();
        }}
      >
        <div class="row">
          <TextField label="Add" value={add.value} onInput={(value) => (add.value = value)} />
          <TextField label="Remove" value={remove.value} onInput={(value) => (remove.value = value)} />
        </div>
        <div class="buttons">
          <button type="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" class="primary" disabled={!add.value.trim() && !remove.value.trim()}>
            Save
          </button>
        </div>
      </form>
    </Dialog>
  );
}
