/** What the server serves, stores and does, and changing what it serves. */
import { ConnectionError } from "residuum";
import { PageHeader } from "../../components/page_header";
import { ProblemNote } from "../../components/problem";
import { connection } from "../../server/connection";
import { client } from "../../server/client";
import { KeyCard } from "./key_card";
import { LoadModel, LoadSae } from "./load_forms";
import { numbersOf, parseMetrics } from "./metrics";
import { type Polled, usePolled } from "./polled";
import { ServedModel, ServedSae } from "./served";
import { askReadiness, ReadinessNote } from "./readiness";
import { StoreCards } from "./store_cards";
import "./server.css";

export function ServerPage() {
  const readiness = usePolled(askReadiness);
  const models = usePolled(async (signal) => (await client.get("/v1/models", { signal })).items);
  const saes = usePolled(async (signal) => (await client.get("/v1/saes", { signal })).items);
  const numbers = usePolled(async (signal) => {
    const response = await client.request("/metrics", { signal });
    return numbersOf(parseMetrics(await response.text()));
  });
  const reload = () => {
    models.reload();
    saes.reload();
  };
  const version = readiness.value?.version;
  return (
    <div class="server-page">
      <PageHeader title="Server">
        {version ? `Residuum ${version} at ${location.host}.` : `Residuum at ${location.host}.`} Refreshed every three seconds.
      </PageHeader>
      <ReadinessNote of={readiness} />
      <section aria-labelledby="server-models">
        <h2 id="server-models">Models</h2>
        <PolledProblem of={models} />
        {models.value?.length === 0 && (
          <p class="soft">No model is served. Load one below, or start the server with --model NAME=PATH.</p>
        )}
        {models.value ? (
          <div class="served-list">
            {models.value.map((model) => (
              <ServedModel key={model.id} model={model} onChange={reload} />
            ))}
          </div>
        ) : (
          models.error === undefined && <p class="loading">Loading models …</p>
        )}
        <LoadModel onLoaded={reload} />
      </section>
      <section aria-labelledby="server-saes">
        <h2 id="server-saes">Sparse autoencoders</h2>
        <PolledProblem of={saes} />
        {saes.value?.length === 0 && <p class="soft">None is served.</p>}
        <div class="served-list">
          {saes.value?.map((sae) => (
            <ServedSae key={sae.id} sae={sae} onChange={reload} />
          ))}
        </div>
        <LoadSae models={models.value ?? []} onLoaded={reload} />
      </section>
      <StoreCards numbers={numbers} />
      <KeyCard />
    </div>
  );
}

/** The problem of a question; of a lost server only while nothing is shown yet, because the banner of the page says it. */
export function PolledProblem({ of: polled }: { of: Polled<unknown> }) {
  if (polled.error === undefined) return null;
  if (polled.error instanceof ConnectionError && (polled.value !== undefined || connection.value === "lost")) return null;
  return <ProblemNote error={polled.error} onRetry={polled.reload} />;
}
