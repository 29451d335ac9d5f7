/** What people have noted about a cache: label, tags, metadata, whether it is kept. All of it can be changed. */
import { useSignal } from "@preact/signals";
import type { Cache } from "residuum";
import { Check, TextArea, TextField } from "../../components/fields";
import { ProblemNote } from "../../components/problem";
import { ago, dateTime } from "../../format/time";
import { href } from "../../router/location";
import { Link } from "../../router/link";
import type { Schemas } from "../../server/catalogue";
import { client } from "../../server/client";
import { useAction } from "../../server/resource";
import { parseMetadata } from "../home/form";
import { commaList } from "../../format/lists";

type Patch = Schemas["CachePatch"];

/** Metadata as lines `key=value`, which `parseMetadata` reads. Values that are no plain ones are left out. */
export function metadataLines(metadata: Record<string, unknown>): string {
  return Object.entries(metadata)
    .filter(([, value]) => value === null || typeof value !== "object")
    .map(([key, value]) => `${key}=${String(value)}`)
    .join("\n");
}

/** The change from one metadata to another: null removes a key. Values that are no plain ones are left as they are. */
export function metadataPatch(before: Record<string, unknown>, after: Record<string, unknown>): Record<string, unknown> {
  const change: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(before)) {
    if (!(key in after) && (value === null || typeof value !== "object")) change[key] = null;
  }
  for (const [key, value] of Object.entries(after)) if (before[key] !== value) change[key] = value;
  return change;
}

export function Annotations({ cache, onChange }: { cache: Cache; onChange: (cache: Cache) => void }) {
  const isOpen = useSignal(false);
  const patch = useAction(async (signal, body: Patch) => {
    onChange(await client.patch("/v1/caches/{id}", { params: { path: { id: cache.id } }, body, signal }));
    return true;
  });
  return (
    <section class="card" aria-labelledby="notes">
      <div class="row hooks-head">
        <h2 id="notes">Notes</h2>
        <span class="spacer" />
        <Check
          label="Pinned"
          checked={cache.pinned}
          disabled={patch.isRunning}
          onChange={(pinned) => void patch.run({ pinned })}
        />
        <button
          type="button"
          aria-expanded={isOpen.value}
          onClick={() => {
            isOpen.value = !isOpen.value;
          }}
        >
          Edit
        </button>
      </div>
      {patch.error !== undefined && <ProblemNote error={patch.error} />}
      {isOpen.value ? (
        <Editor
          cache={cache}
          isBusy={patch.isRunning}
          onSave={async (body) => {
            if (await patch.run(body)) isOpen.value = false;
          }}
        />
      ) : (
        <Shown cache={cache} />
      )}
    </section>
  );
}

function Shown({ cache }: { cache: Cache }) {
  const metadata = Object.entries(cache.metadata);
  return (
    <dl class="facts">
      <dt>Label</dt>
      <dd>{cache.label == null ? <span class="soft">none</span> : <bdi>{cache.label}</bdi>}</dd>
      <dt>Tags</dt>
      <dd>
        {cache.tags.length === 0 && <span class="soft">none</span>}
        {cache.tags.map((tag) => (
          <Link key={tag} class="tag" to={href("/caches", { tag })}>
            <bdi>{tag}</bdi>
          </Link>
        ))}
      </dd>
      {metadata.map(([key, value]) => (
        <>
          <dt>
            <bdi>{key}</bdi>
          </dt>
          <dd>
            <bdi>{typeof value === "string" ? value : JSON.stringify(value)}</bdi>
          </dd>
        </>
      ))}
      {cache.expires_at && (
        <>
          <dt>Expires</dt>
          <dd title={dateTime(cache.expires_at)}>
            {cache.pinned ? "not while it is pinned" : ago(Date.parse(cache.expires_at))}
          </dd>
        </>
      )}
    </dl>
  );
}

function Editor(props: { cache: Cache; isBusy: boolean; onSave: (body: Patch) => Promise<void> }) {
  const { cache, isBusy, onSave } = props;
  const label = useSignal(cache.label ?? "");
  const tags = useSignal(cache.tags.join(", "));
  const metadata = useSignal(metadataLines(cache.metadata));
  const parsed = parseMetadata(metadata.value);
  return (
    <form
      class="notes-form"
      onSubmit={(event) => {
        event.preventDefault();
        if (typeof parsed === "string") return;
        const change = metadataPatch(cache.metadata, parsed);
        void onSave({
          label: label.value || null,
          tags: commaList(tags.value),
          ...(Object.keys(change).length > 0 && { metadata: change }),
        });
      }}
    >
      <TextField label="Label" value={label.value} onInput={(value) => (label.value = value)} />
      <TextField label="Tags, separated by commas" value={tags.value} onInput={(value) => (tags.value = value)} />
      <TextArea label="Metadata, one key=value per line" value={metadata.value} onInput={(value) => (metadata.value = value)} />
      {typeof parsed === "string" && <p class="fault fault-bad">{parsed}</p>}
      <div class="buttons">
        <button type="submit" class="primary" disabled={isBusy || typeof parsed === "string"}>
          Save
        </button>
      </div>
    </form>
  );
}
