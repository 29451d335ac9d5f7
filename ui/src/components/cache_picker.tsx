/** Finds caches by words and adds one to a view: the newest first while nothing is typed. */
import { useSignal } from "@preact/signals";
import { preview } from "../format/tokens";
import { client } from "../server/client";
import { useResource, pause } from "../server/resource";
import { ProblemNote } from "./problem";

const SHOWN = 12;

export function CachePicker({
  label,
  chosen,
  onPick,
}: {
  label: string;
  chosen: readonly string[];
  onPick: (id: string) => void;
}) {
  const text = useSignal("");
  const found = useResource(`pick ${text.value}`, async (signal) => {
    await pause(150, signal);
    const query = { limit: SHOWN, fields: "id,text,model,label", ...(text.value.trim() && { text: text.value }) };
    return (await client.get("/v1/caches", { params: { query }, signal })).items;
  });
  return (
    <div class="cache-picker">
      <label class="field">
        <span>{label}</span>
        <input
          type="search"
          dir="auto"
          value={text.value}
          placeholder="words of its text"
          onInput={(event) => {
            text.value = event.currentTarget.value;
          }}
        />
      </label>
      {found.error !== undefined && <ProblemNote error={found.error} onRetry={found.reload} />}
      <ul>
        {(found.value ?? []).map(({ id, text: of, model, label: named }) => (
          <li key={id}>
            <button type="button" class="quiet" disabled={chosen.includes(id)} onClick={() => onPick(id)}>
              <bdi>{preview(of ?? "", 70) || id}</bdi>
              <span class="soft">
                {model}
                {named != null && `, ${named}`}
              </span>
            </button>
          </li>
        ))}
      </ul>
      {found.value?.length === 0 && <p class="soft">No cache matches.</p>}
    </div>
  );
}
