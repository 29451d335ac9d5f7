/** What made the numbers of a cache, in words. */
import type { ComponentChildren } from "preact";
import type { Cache } from "residuum";
import { bytes, count, counted } from "../../format/numbers";
import { dateTime } from "../../format/time";
import { href } from "../../router/location";
import { Link } from "../../router/link";

/** What was decided about a beginning-of-sequence token. */
export function bosOf({ bos }: Cache): string {
  const why =
    bos.requested == null
      ? "as the tokenizer decides"
      : bos.requested
        ? "because the request asked for one"
        : "because the request asked for none";
  if (bos.present) return bos.added ? `A BOS token was added, ${why}.` : "The input begins with its own BOS token.";
  return bos.token_id == null ? "The tokenizer has no BOS token." : `No BOS token was added, ${why}.`;
}

/** How the values are: finite or not. */
export function soundness({ n_nan: nan, n_inf: inf }: Cache): string {
  if (nan === 0 && inf === 0) return "All stored values are finite.";
  return `${counted(nan, "stored value")} NaN, ${count(inf)} infinite.`;
}

export function Receipt({ cache }: { cache: Cache }) {
  const { provenance: made, imported } = cache;
  const fact = (name: string, value: ComponentChildren) => (
    <>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </>
  );
  return (
    <section class="card" aria-labelledby="receipt">
      <h2 id="receipt">What made these numbers</h2>
      <dl class="facts">
        {fact("Run", <Link to={href(`/runs/${cache.run}`)}>{cache.run}</Link>)}
        {fact("Stored", `${dateTime(cache.created_at)}, ${bytes(cache.n_bytes)}`)}
        {fact("BOS", bosOf(cache))}
        {fact("Values", soundness(cache))}
        {cache.n_truncated > 0 && fact("Truncated", `${counted(cache.n_truncated, "token")} did not fit the context.`)}
        {fact(
          "Came from",
          imported ? "An imported file" : cache.reused ? "The store: the same rows were there already" : "A forward pass",
        )}
        {fact(
          "Computed in",
          [made.compute_dtype, made.device && `on ${made.device}`, made.weights_dtype && `from ${made.weights_dtype} weights`]
            .filter(Boolean)
            .join(" ") || "not known",
        )}
        {fact("Server", `version ${made.residuum_version ?? "–"}, numerics ${made.numerics_version ?? "–"}`)}
        {fact("Model", <code>{made.model_fingerprint ?? "–"}</code>)}
        {fact("Contents", <code>{cache.content_hash}</code>)}
        {imported && fact("File", <code>{imported.file_hash}</code>)}
        {made.interventions.length > 0 &&
          fact(
            "Interventions",
            <details>
              <summary>{counted(made.interventions.length, "change")} during the forward pass</summary>
              <pre tabIndex={0}>{JSON.stringify(made.interventions, null, 1)}</pre>
            </details>,
          )}
        {made.warnings.map(({ code, detail }) => (
          <>
            <dt>Warning</dt>
            <dd>
              {detail} <code>{code}</code>
            </dd>
          </>
        ))}
      </dl>
    </section>
  );
}
