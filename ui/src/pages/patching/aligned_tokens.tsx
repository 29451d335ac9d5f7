/** The tokens of the clean and the corrupt text, one above the other. */
import { visible } from "../../format/tokens";
import { counted } from "../../format/numbers";
import type { Tokenization } from "../../server/catalogue";

export function AlignedTokens({ clean, corrupt }: { clean: Tokenization; corrupt: Tokenization }) {
  const n = Math.max(clean.n_tokens, corrupt.n_tokens);
  const differing = Array.from({ length: n }, (_, i) => clean.token_ids[i] !== corrupt.token_ids[i]);
  const nDifferent = differing.filter(Boolean).length;
  return (
    <>
      <ol class="aligned" aria-label="Tokens of the clean text above those of the corrupt one" tabIndex={0}>
        {differing.map((differs, i) => (
          <li key={i} class={differs ? "aligned-differs" : undefined}>
            <span class="soft">{i}</span>
            <code>
              <bdi>{i < clean.n_tokens ? visible(clean.tokens[i] as string) : "–"}</bdi>
            </code>
            <code>
              <bdi>{i < corrupt.n_tokens ? visible(corrupt.tokens[i] as string) : "–"}</bdi>
            </code>
          </li>
        ))}
      </ol>
      {clean.n_tokens !== corrupt.n_tokens ? (
        <p class="fault fault-bad">
          The texts have {clean.n_tokens} and {corrupt.n_tokens} tokens. Both need equally many, so that each position of one has
          its counterpart.
        </p>
      ) : nDifferent === 0 ? (
        <p class="fault fault-bad">The texts are the same.</p>
      ) : (
        <p class="soft">
          {counted(n, "token")}, {nDifferent} of them different.
        </p>
      )}
    </>
  );
}
