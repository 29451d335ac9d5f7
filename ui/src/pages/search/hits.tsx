/** What a search found: each hit with its score and its token in context. */
import { Empty } from "../../components/problem";
import { bytes, count, counted, exact, significant } from "../../format/numbers";
import { visible } from "../../format/tokens";
import { href } from "../../router/location";
import { Link } from "../../router/link";
import type { Schemas } from "../../server/catalogue";
import { METRICS, partsOf, type SearchPlan } from "./request";

/** More ids than this do not fit into an address. */
const MOST_IN_ADDRESS = 150;

export function Hits({ answer, plan }: { answer: Schemas["SearchAnswer"]; plan: SearchPlan }) {
  const hits = answer.results[0]?.hits ?? [];
  const { scanned } = answer;
  const ids = [...new Set(hits.map(({ cache }) => cache))].slice(0, MOST_IN_ADDRESS);
  const where = { hook: plan.hook, layer: plan.layer };
  if (hits.length === 0) return <NoHits answer={answer} plan={plan} />;
  return (
    <>
      <div class="row search-summary">
        <p class="soft">
          <code>{answer.hook}</code>: {METRICS[answer.metric].meaning}. {counted(scanned.rows, "row")} of{" "}
          {counted(scanned.caches, "cache")} compared ({bytes(scanned.bytes)}){leftOut(scanned)}.
        </p>
        <span class="spacer" />
        {ids.length >= 3 && (
          <Link class="button" to={href("/map", { cache: ids, ...where })}>
            Map them
          </Link>
        )}
        {ids.length >= 2 && (
          <Link class="button" to={href("/compare", { cache: ids })}>
            Compare
          </Link>
        )}
      </div>
      <ol class="search-hits">
        {hits.map((hit) => (
          <Hit key={`${hit.cache} ${hit.position ?? "mean"}`} hit={hit} plan={plan} />
        ))}
      </ol>
    </>
  );
}

function Hit({ hit, plan }: { hit: Schemas["SearchHit"]; plan: SearchPlan }) {
  const { cache, position, score, label, tags } = hit;
  const place = typeof position === "number" ? { position } : {};
  return (
    <li class="card search-hit">
      <span class="search-score" title={exact(score)}>
        {scoreText(score)}
      </span>
      <div class="search-body">
        <Link class="search-link" to={href(`/caches/${cache}`, place)}>
          <Context hit={hit} />
        </Link>
        <div class="search-meta">
          <span class="soft">{typeof position === "number" ? `position ${position}` : "mean of the tokens"}</span>
          {label && (
            <span class="search-label">
              <bdi>{label}</bdi>
            </span>
          )}
          {tags.map((tag) => (
            <span key={tag} class="tag">
              <bdi>{tag}</bdi>
            </span>
          ))}
          <Link to={href("/search", { cache, hook: plan.hook, layer: plan.layer, over: plan.over, metric: plan.metric })}>
            Find similar
          </Link>
        </div>
      </div>
    </li>
  );
}

function Context({ hit }: { hit: Schemas["SearchHit"] }) {
  if (!hit.context) return <span class="mono">{hit.token ? visible(hit.token) : hit.cache}</span>;
  const { before, hit: token, after, isStart } = partsOf(hit.context);
  return (
    <span class="search-context" dir="auto">
      {!isStart && <span class="soft">… </span>}
      <bdi>{before}</bdi>
      <mark>
        <bdi>{visible(token)}</bdi>
      </mark>
      <bdi>{after}</bdi>
    </span>
  );
}

/** Six digits with trailing zeros, so that scores stand below each other. */
function scoreText(score: number): string {
  const size = Math.abs(score);
  return size >= 1e-4 && size < 1e6 ? score.toPrecision(6).replace("-", "−") : significant(score, 6);
}

function leftOut({ skipped, damaged }: Schemas["Scanned"]): string {
  const parts = [
    skipped > 0 && `${count(skipped)} without this position left out`,
    damaged > 0 && `${count(damaged)} with damaged files left out`,
  ].filter(Boolean);
  return parts.length > 0 ? `; ${parts.join(", ")}` : "";
}

function NoHits({ answer, plan }: { answer: Schemas["SearchAnswer"]; plan: SearchPlan }) {
  const { scanned, hook } = answer;
  const advice =
    plan.position === "mean"
      ? "only caches that stored the mean of their tokens have one. Choose the last token"
      : "choose another position, or capture with all positions";
  return (
    <Empty title="Nothing found">
      {scanned.skipped > 0
        ? `${counted(scanned.skipped, "cache")} with ${hook} left out, because of the position: ${advice}.`
        : `No other stored cache that fits has ${hook}. Choose another layer or hook, take away a condition, or capture more texts.`}
    </Empty>
  );
}
