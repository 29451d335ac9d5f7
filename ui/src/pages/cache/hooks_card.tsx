/** The captured hooks with their shapes, and the files that they can be fetched as. */
import type { Cache } from "residuum";
import { ProblemNote } from "../../components/problem";
import { counted } from "../../format/numbers";
import { href, queryText, setQuery } from "../../router/location";
import { Link } from "../../router/link";
import { download } from "../../server/download";
import { useAction } from "../../server/resource";

export function HooksCard({ cache }: { cache: Cache }) {
  const wanted = queryText("find");
  const shown = cache.hooks.filter(({ hook }) => hook.includes(wanted));
  const save = useAction(async (signal, path: string, name: string) => download(path, name, signal));
  const tensor = (hook: string, format: string) => `/v1/caches/${cache.id}/tensors/${encodeURIComponent(hook)}?format=${format}`;
  return (
    <section class="card" aria-labelledby="hooks">
      <div class="row hooks-head">
        <h2 id="hooks">{counted(cache.hooks.length, "captured hook")}</h2>
        <span class="spacer" />
        <label class="field">
          <span class="unseen">Filter hooks</span>
          <input
            value={wanted}
            placeholder="filter, such as 12.attn"
            onInput={(event) => setQuery({ find: event.currentTarget.value }, { replace: true })}
          />
        </label>
        <button
          type="button"
          disabled={save.isRunning}
          onClick={() => void save.run(`/v1/caches/${cache.id}/safetensors`, `${cache.id}.safetensors`)}
        >
          All as safetensors
        </button>
      </div>
      {save.error !== undefined && <ProblemNote error={save.error} />}
      <div class="table-box hooks-table" tabIndex={0} role="region" aria-label="Captured hooks">
        <table>
          <thead>
            <tr>
              <th scope="col">Hook</th>
              <th scope="col">Shape</th>
              <th scope="col">Type</th>
              <th scope="col">
                <span class="unseen">Download</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {shown.map(({ hook, shape, axes, dtype }) => (
              <tr key={hook}>
                <th scope="row">
                  <HookName cache={cache} hook={hook} />
                </th>
                <td>
                  {shape.map((size, i) => (
                    <span key={i} class="axis">
                      {size} <span class="soft">{axes[i]}</span>
                    </span>
                  ))}
                </td>
                <td>{dtype}</td>
                <td class="hooks-files">
                  {(["npy", "safetensors"] as const).map((format) => (
                    <button
                      key={format}
                      type="button"
                      class="quiet"
                      disabled={save.isRunning}
                      aria-label={`${hook} as ${format}`}
                      onClick={() => void save.run(tensor(hook, format), `${cache.id}.${hook}.${format}`)}
                    >
                      {format}
                    </button>
                  ))}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

/** Patterns lead to their picture. */
function HookName({ cache, hook }: { cache: Cache; hook: string }) {
  const layer = /^blocks\.(\d+)\.attn\.hook_pattern$/.exec(hook)?.[1];
  if (layer === undefined) return <code>{hook}</code>;
  return (
    <Link to={href(`/caches/${cache.id}/attention`, { layer })}>
      <code>{hook}</code>
    </Link>
  );
}
