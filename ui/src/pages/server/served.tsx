/** One model or autoencoder that the server has, is loading, or could not load. */
import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { type Model, ResiduumError, type Sae } from "residuum";
import { Confirm } from "../../components/dialog";
import { Check } from "../../components/fields";
import { ProblemNote } from "../../components/problem";
import { bytes, count, counted } from "../../format/numbers";
import { href } from "../../router/location";
import { Link } from "../../router/link";
import { client } from "../../server/client";
import { useAction } from "../../server/resource";
import type { Schemas } from "../../server/catalogue";
import { type Fact, Facts } from "./facts";
import { stageText } from "./progress";

export function ServedModel({ model, onChange }: { model: Model; onChange: () => void }) {
  const now = useFollowed(model, (id, signal) => client.models.follow(id, { signal }), onChange);
  const asks = useSignal(false);
  const cancels = useSignal(false);
  const { id } = now;
  const unload = useAction(async (signal) => {
    const query = { cancel_runs: cancels.peek() };
    await client.delete("/v1/models/{id}", { params: { path: { id }, query }, signal });
    onChange();
  });
  return (
    <Served
      id={id}
      served={now}
      unload={unload}
      onUnload={() => (asks.value = true)}
      link={now.status === "ready" && <Link to={href("/", { model: id })}>New run</Link>}
      facts={now.status === "ready" ? modelFacts(now) : []}
      warnings={now.status === "ready" ? now.warnings : []}
    >
      {asks.value && (
        <Confirm
          title={`${QUESTION[now.status]} ${id}?`}
          action={QUESTION[now.status]}
          onConfirm={() => void unload.run()}
          onClose={() => (asks.value = false)}
        >
          {now.status === "ready" ? (
            <>
              <p>
                New runs are refused from now on, for everyone who uses this server. Accepted runs are computed first. What is
                stored stays.
              </p>
              <Check
                label="Cancel accepted runs instead, of all tenants"
                checked={cancels.value}
                onChange={(checked) => (cancels.value = checked)}
              />
            </>
          ) : (
            <p>It is taken off the list. What is stored stays.</p>
          )}
        </Confirm>
      )}
    </Served>
  );
}

export function ServedSae({ sae, onChange }: { sae: Sae; onChange: () => void }) {
  const now = useFollowed(sae, (id, signal) => client.saes.follow(id, { signal }), onChange);
  const asks = useSignal(false);
  const { id } = now;
  const unload = useAction(async (signal) => {
    await client.delete("/v1/saes/{id}", { params: { path: { id } }, signal });
    onChange();
  });
  return (
    <Served
      id={id}
      served={now}
      unload={unload}
      onUnload={() => (asks.value = true)}
      link={now.status === "ready" && <Link to={href("/features", { sae: id })}>Features</Link>}
      facts={now.status === "ready" ? saeFacts(now) : [["of", now.model]]}
      warnings={now.warnings}
    >
      {asks.value && (
        <Confirm
          title={`${QUESTION[now.status]} ${id}?`}
          action={QUESTION[now.status]}
          onConfirm={() => void unload.run()}
          onClose={() => (asks.value = false)}
        >
          <p>It is unloaded for everyone who uses this server. The files of an upload are deleted.</p>
        </Confirm>
      )}
    </Served>
  );
}

/** What taking something away is called, by its status. */
const QUESTION = { ready: "Unload", unloading: "Unload", loading: "Stop loading", failed: "Forget" } as const;

interface ServedProps {
  id: string;
  served: Model | Sae;
  unload: { isRunning: boolean; error: unknown };
  onUnload: () => void;
  link: ComponentChildren;
  facts: readonly Fact[];
  warnings: readonly Schemas["Warning"][];
  children: ComponentChildren;
}

function Served({ id, served, unload, onUnload, link, facts, warnings, children }: ServedProps) {
  const { status, progress, error } = served;
  const verb = QUESTION[status];
  return (
    <article class="card served" aria-label={id}>
      <header>
        <h3 class="mono">{id}</h3>
        <span class={`status status-${status}`}>{status}</span>
        <span class="spacer" />
        {link}
        {status !== "unloading" && (
          <button type="button" class="quiet" disabled={unload.isRunning} aria-label={`${verb} ${id}`} onClick={onUnload}>
            {verb}
          </button>
        )}
      </header>
      {progress && <Progress progress={progress} />}
      {error && <ProblemNote error={new ResiduumError(error)} />}
      {unload.error !== undefined && <ProblemNote error={unload.error} />}
      <Facts facts={facts} />
      {warnings.length > 0 && (
        <details class="served-warnings">
          <summary>{counted(warnings.length, "warning")}</summary>
          <ul>
            {warnings.map(({ code, detail }, i) => (
              <li key={i}>
                <code>{code}</code> {detail}
              </li>
            ))}
          </ul>
        </details>
      )}
      {children}
    </article>
  );
}

function Progress({ progress }: { progress: Schemas["LoadProgress"] }) {
  const { part, text } = stageText(progress);
  return (
    <div class="served-progress">
      <div
        class="bar"
        role="progressbar"
        aria-label="Loading"
        aria-valuetext={text}
        aria-valuemin={0}
        aria-valuemax={100}
        aria-valuenow={part === undefined ? undefined : Math.round(part * 100)}
      >
        <div style={{ width: `${(part ?? 0) * 100}%` }} />
      </div>
      <span class="soft">{text}</span>
    </div>
  );
}

/** What the list says, or, while it is loaded or unloaded, what its events say: they come sooner. */
function useFollowed<Item extends Model | Sae>(
  item: Item,
  follow: (id: string, signal: AbortSignal) => AsyncGenerator<Item, void, undefined>,
  onEnd: () => void,
): Item {
  const newest = useSignal<Item | null>(null);
  const end = useRef(onEnd);
  end.current = onEnd;
  const isChanging = item.status === "loading" || item.status === "unloading";
  useEffect(() => {
    newest.value = null;
    if (!isChanging) return undefined;
    const controller = new AbortController();
    void (async () => {
      try {
        for await (const next of follow(item.id, controller.signal)) newest.value = next;
      } catch {
        // The list is asked anyway, and tells what has become of it.
      }
      if (!controller.signal.aborted) end.current();
    })();
    return () => controller.abort();
  }, [item.id, item.status]);
  return (isChanging && newest.value) || item;
}

function modelFacts(model: Schemas["ReadyModel"]): Fact[] {
  const heads = model.n_kv_heads === model.n_heads ? count(model.n_heads) : `${model.n_heads} (${model.n_kv_heads} key/value)`;
  return [
    ["family", model.architecture],
    ["parameters", count(model.n_params)],
    ["layers", count(model.n_layers)],
    ["d_model", count(model.d_model)],
    ["heads", heads],
    ["vocabulary", count(model.d_vocab)],
    ["context", `${count(model.n_ctx)} tokens`],
    model.n_experts > 0 && ["experts", `${model.top_k} of ${model.n_experts}`],
    ["memory", sizeOf(model.memory_bytes)],
    ["device", model.device],
    ["weights", model.weights_dtype],
    ["computes in", model.compute_dtype],
    ["named by", originOf(model)],
    ["fingerprint", model.fingerprint.slice(0, 12), model.fingerprint],
  ];
}

function saeFacts(sae: Schemas["ReadySae"]): Fact[] {
  return [
    ["of", sae.model],
    ["hook", sae.hook],
    ["architecture", sae.architecture],
    ["features", count(sae.d_sae)],
    ["input", count(sae.d_in)],
    ["memory", sizeOf(sae.memory_bytes)],
    ["named by", originOf(sae)],
    ["fingerprint", sae.fingerprint.slice(0, 12), sae.fingerprint],
  ];
}

const sizeOf = (size: number | null | undefined) => (typeof size === "number" ? bytes(size) : "not known");

function originOf({ at_run_time, source }: { at_run_time: boolean; source?: string | null | undefined }): string {
  if (!at_run_time) return "the server's flags";
  return source ? `a request: ${source}` : "an upload";
}
