/** One feature: how often it is active, and the tokens at which it is most active, in their contexts. */
import { sequential } from "../../colour/scale";
import { theme } from "../../colour/theme";
import { CopyAs } from "../../components/copy_as";
import { Loaded } from "../../components/problem";
import { count, counted, percent, significant } from "../../format/numbers";
import { pythonClient } from "../../format/snippets";
import { visible } from "../../format/tokens";
import { href } from "../../router/location";
import { Link } from "../../router/link";
import type { ReadySae, Schemas } from "../../server/catalogue";
import { client } from "../../server/client";
import { useResource } from "../../server/resource";

const HITS = 12;
const CONTEXT = 10;

export function OneFeature({ sae, feature }: { sae: ReadySae; feature: number }) {
  const body = { features: [feature], k: HITS, context: CONTEXT, skip_first: 1 };
  const found = useResource(`${sae.id} ${feature}`, (signal) =>
    client.post("/v1/saes/{id}/tokens", { params: { path: { id: sae.id } }, body, signal }),
  );
  return (
    <section class="card features-one" aria-labelledby="feature">
      <div class="row">
        <h2 id="feature">Feature {feature}</h2>
        <span class="spacer" />
        <CopyAs
          request={{ method: "POST", path: `/v1/saes/${sae.id}/tokens`, body }}
          python={`${pythonClient(location.origin)}\nfound = client.saes["${sae.id}"].tokens(${feature}, k=${HITS})`}
        />
      </div>
      <Loaded of={found} what="contexts">
        {({ features: [one], scanned }) =>
          one && (
            <>
              <p>
                Active at {counted(one.n_active, "position")}
                {one.density != null && ` (${percent(one.density)})`} of {count(scanned.rows)} in{" "}
                {counted(scanned.caches, "cache")}
                {one.mean != null && `, ${significant(one.mean)} on average`}. First tokens are left out.
              </p>
              {one.hits.length === 0 && <p class="soft">It is active at none of the stored tokens.</p>}
              <Hits hits={one.hits} />
            </>
          )
        }
      </Loaded>
    </section>
  );
}

function Hits({ hits }: { hits: readonly Schemas["SearchHit"][] }) {
  const scale = sequential(0, hits[0]?.score ?? 1, theme.value);
  return (
    <ol class="feature-hits">
      {hits.map(({ cache, position, score, context }) => (
        <li key={`${cache} ${position}`}>
          <span class="number">{significant(score)}</span>
          <Link to={href(`/caches/${cache}`, { token: position ?? null })}>
            <span class="feature-context" dir="auto">
              {(context?.tokens ?? []).map((token, i) =>
                i === context?.hit ? (
                  <mark key={i} style={{ background: scale.css(score), color: scale.ink(score) }}>
                    {visible(token)}
                  </mark>
                ) : (
                  <span key={i}>{token}</span>
                ),
              )}
            </span>
          </Link>
        </li>
      ))}
    </ol>
  );
}
