/** What a run would store: a dry run, a moment after the last change. */
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { CreateRun, DryRun } from "residuum";
import { ProblemNote } from "../../components/problem";
import { bytes, count, counted } from "../../format/numbers";
import { client } from "../../server/client";
import { type Resource, useResource } from "../../server/resource";

export interface RunCost {
  cost: Resource<DryRun>;
  /** Whether the answer is about the form as it is now. */
  isCurrent: boolean;
}

export function useCost(body: CreateRun | null): RunCost {
  const key = body && JSON.stringify(body);
  const rested = useSignal<{ key: string | null; body: CreateRun | null }>({ key: null, body: null });
  useEffect(() => {
    const timer = setTimeout(() => {
      rested.value = { key, body };
    }, 250);
    return () => clearTimeout(timer);
  }, [key]);
  const cost = useResource(rested.value.key, (signal) => client.dryRun(rested.value.body as CreateRun, { signal }));
  return { cost, isCurrent: rested.value.key === key };
}

export function Cost({ body, cost: { cost, isCurrent } }: { body: CreateRun | null; cost: RunCost }) {
  // What was known stays until the next answer, so that the page does not jump.
  const last = useRef<DryRun | undefined>(undefined);
  if (cost.value) last.current = cost.value;
  const value = last.current;
  const hooks = value?.items[0]?.hooks ?? [];
  return (
    <section class="card cost" aria-labelledby="cost" aria-busy={cost.isLoading || !isCurrent}>
      <h2 id="cost">What it would store</h2>
      {body === null ? (
        <p class="soft">Complete the form to see it.</p>
      ) : cost.error !== undefined ? (
        <ProblemNote error={cost.error} />
      ) : !value ? (
        <p class="loading">A dry run …</p>
      ) : (
        <>
          <dl class="facts">
            <dt>Inputs</dt>
            <dd>{count(value.n_items)}</dd>
            <dt>Tokens</dt>
            <dd>{count(value.n_tokens)}</dd>
            <dt>Size</dt>
            <dd>{bytes(value.n_bytes)}</dd>
          </dl>
          {hooks.length > 0 && (
            <details>
              <summary>{counted(hooks.length, "tensor")} of the first input</summary>
              <ul class="cost-hooks">
                {hooks.map(({ hook, shape }) => (
                  <li key={hook}>
                    <code>{hook}</code> <span class="soft">[{shape.join(", ")}]</span>
                  </li>
                ))}
              </ul>
            </details>
          )}
        </>
      )}
    </section>
  );
}
