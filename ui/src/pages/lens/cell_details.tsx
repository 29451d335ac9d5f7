/** One cell of the grid in full: the most probable tokens with their probabilities. */
import { percent, significant } from "../../format/numbers";
import { visible } from "../../format/tokens";
import { setQuery } from "../../router/location";
import type { Lens } from "./lens_values";

export function CellDetails({ lens, index, column }: { lens: Lens; index: number; column: number }) {
  const found = lens.values[index]?.[column];
  return (
    <section class="card" aria-labelledby="lens-cell">
      <h2 id="lens-cell">
        Layer {lens.layers[index]}, after <code>{visible(lens.position_tokens[column] ?? "")}</code> (position{" "}
        {lens.positions[column]})
      </h2>
      {!found || found.top.length === 0 ? (
        <p>A logit is not finite here.</p>
      ) : (
        <>
          <ol class="top-tokens">
            {found.top.map(({ id, token, probability }) => (
              <li key={id}>
                <button
                  type="button"
                  class="quiet"
                  title="Follow this token through the layers"
                  onClick={() => setQuery({ follow: `#${id}` })}
                >
                  <code>
                    <bdi>{visible(token)}</bdi>
                  </code>
                </button>
                <div class="bar" aria-hidden="true">
                  <div style={{ width: `${probability * 100}%` }} />
                </div>
                <span class="number">{percent(probability)}</span>
              </li>
            ))}
          </ol>
          <p class="soft">
            Entropy {significant(found.entropy ?? Number.NaN)} nats
            {found.kl != null && `, KL from the model's own distribution ${significant(found.kl)} nats`}. Choose a token to follow
            it.
          </p>
        </>
      )}
    </section>
  );
}
