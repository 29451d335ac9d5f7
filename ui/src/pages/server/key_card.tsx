/** The key that the page sends, and what it may do. */
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { ProblemNote } from "../../components/problem";
import { apiKey, keyWanted } from "../../server/key";
import { useAction } from "../../server/resource";
import { askScopes, type KeyAnswer, MEANING } from "./scopes";

export function KeyCard() {
  const answer = useSignal<KeyAnswer | null>(null);
  const key = apiKey.value;
  const ask = useAction(async (signal) => {
    answer.value = await askScopes(apiKey.peek(), fetch, signal);
  });
  useEffect(() => {
    answer.value = null;
  }, [key]);
  return (
    <section class="card server-key" aria-labelledby="server-key">
      <h2 id="server-key">API key</h2>
      <p>
        {key ? `This page sends the key ${publicPart(key)}.` : "This page sends no key."}{" "}
        <span class="soft">
          The server does not tell what a key may do. The page can ask by sending one request for each scope that changes nothing.
        </span>
      </p>
      {answer.value && <Answer answer={answer.value} hasKey={key !== ""} />}
      {ask.error !== undefined && <ProblemNote error={ask.error} />}
      <div class="buttons">
        <button type="button" disabled={ask.isRunning} onClick={() => void ask.run()}>
          {answer.value ? "Ask again" : "Ask what it may do"}
        </button>
        <button type="button" class="quiet" onClick={() => (keyWanted.value = true)}>
          {key ? "Change the key" : "Set a key"}
        </button>
      </div>
    </section>
  );
}

function Answer({ answer, hasKey }: { answer: KeyAnswer; hasKey: boolean }) {
  return (
    <>
      {answer.isKeyWanted === false && (
        <p>
          The server asks for no key: whoever reaches it may do everything.
          {hasKey && " The key that this page sends changes nothing."}
        </p>
      )}
      <ul class="server-scopes" aria-label="Scopes">
        {answer.scopes.map(({ scope, isAllowed, code }) => (
          <li key={scope}>
            <span class={`status ${isAllowed ? "status-ready" : isAllowed === false ? "status-failed" : ""}`}>
              <code>{scope}</code>
            </span>
            <span>{isAllowed ? "allowed" : isAllowed === false ? "refused" : "not known"}</span>
            <span class="soft">
              {MEANING[scope]}
              {code && (
                <>
                  {" "}
                  (<code>{code}</code>)
                </>
              )}
            </span>
          </li>
        ))}
      </ul>
    </>
  );
}

/** The digits that identify a key in listings and logs, never the secret. */
function publicPart(key: string): string {
  return /^rsd_([0-9a-f]{12})_/.exec(key)?.[1] ?? "that you set";
}
