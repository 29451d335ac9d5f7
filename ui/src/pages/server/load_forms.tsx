/** Loading a model, or a sparse autoencoder, while the server runs. */
import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import type { Model } from "residuum";
import { CopyAs } from "../../components/copy_as";
import { Check, Choice, Select, TextField, optionsOf } from "../../components/fields";
import { ProblemNote } from "../../components/problem";
import { pythonArguments, pythonClient, pythonOf, shellWord } from "../../format/snippets";
import { queryText, setQuery } from "../../router/location";
import { client } from "../../server/client";
import { useAction } from "../../server/resource";
import { uploadSae } from "./upload";

const HINT = "A folder or a .gguf file in the server's --models-dir, or org/name with --allow-hub.";

/** A form that opens with a button: which one is in the address. */
function Opened(props: { name: string; title: string; children: ComponentChildren }) {
  const isOpen = queryText("load") === props.name;
  return (
    <details
      class="card server-load"
      open={isOpen}
      onToggle={(event) => {
        const opened = event.currentTarget.open;
        if (opened !== (queryText("load") === props.name)) setQuery({ load: opened ? props.name : null }, { replace: true });
      }}
    >
      <summary>{props.title}</summary>
      {props.children}
    </details>
  );
}

export function LoadModel({ onLoaded }: { onLoaded: () => void }) {
  const id = useSignal("");
  const source = useSignal("");
  const force = useSignal(false);
  const body = { id: id.value.trim(), source: source.value.trim(), ...(force.value && { force: true }) };
  const load = useAction(async (signal) => {
    await client.post("/v1/models", { body, signal });
    id.value = "";
    source.value = "";
    onLoaded();
  });
  const cli = [
    "residuum models load",
    shellWord(body.id || "NAME"),
    shellWord(body.source || "SOURCE"),
    force.value && "--force",
  ];
  return (
    <Opened name="model" title="Load a model">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (body.id && body.source) void load.run();
        }}
      >
        <div class="columns">
          <TextField
            label="Name"
            value={id.value}
            mono
            hint="For requests: letters, digits, dots, dashes."
            onInput={(value) => (id.value = value)}
          />
          <TextField label="Source" value={source.value} mono hint={HINT} onInput={(value) => (source.value = value)} />
        </div>
        <Check
          label="Even if there does not seem to be enough memory"
          checked={force.value}
          onChange={(on) => (force.value = on)}
        />
        {load.error !== undefined && <ProblemNote error={load.error} />}
        <div class="buttons">
          <button type="submit" class="primary" disabled={!body.id || !body.source || load.isRunning}>
            Load
          </button>
          <span class="soft">
            Needs the scope <code>admin</code> where there are keys.
          </span>
        </div>
      </form>
      <CopyAs
        request={{ method: "POST", path: "/v1/models", body }}
        python={`${pythonClient(location.origin)}\nclient.load_model(${[pythonOf(body.id), pythonOf(body.source), pythonArguments({ force: force.value || undefined })].filter(Boolean).join(", ")})`}
        cli={cli.filter(Boolean).join(" ")}
      />
    </Opened>
  );
}

export function LoadSae({ models, onLoaded }: { models: readonly Model[]; onLoaded: () => void }) {
  const id = useSignal("");
  const source = useSignal("");
  const chosen = useSignal("");
  const from = useSignal<"folder" | "upload">("folder");
  const cfg = useSignal<File | null>(null);
  const weights = useSignal<File | null>(null);
  const names = models.filter(({ status }) => status === "ready").map(({ id: name }) => name);
  const model = names.includes(chosen.value) ? chosen.value : (names[0] ?? "");
  const body = { id: id.value.trim(), model, source: source.value.trim() };
  const isComplete =
    body.id !== "" && model !== "" && (from.value === "folder" ? body.source !== "" : !!cfg.value && !!weights.value);
  const load = useAction(async (signal) => {
    if (from.peek() === "folder") await client.post("/v1/saes", { body, signal });
    else await uploadSae({ id: body.id, model, cfg: cfg.peek() as File, weights: weights.peek() as File }, signal);
    id.value = "";
    onLoaded();
  });
  if (names.length === 0) return null;
  return (
    <Opened name="autoencoder" title="Load an autoencoder">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (isComplete) void load.run();
        }}
      >
        <div class="columns">
          <TextField label="Name" value={id.value} mono onInput={(value) => (id.value = value)} />
          <Select label="Model" value={model} options={optionsOf(names)} onChange={(value) => (chosen.value = value)} />
        </div>
        <Choice
          label="Where it comes from"
          value={from.value}
          options={[
            { value: "folder", label: "Folder of the server" },
            { value: "upload", label: "Upload" },
          ]}
          onChange={(value) => (from.value = value)}
        />
        {from.value === "folder" ? (
          <TextField
            label="Source"
            value={source.value}
            mono
            hint="A folder in the server's --models-dir with cfg.json and sae_weights.safetensors, as SAELens writes them."
            onInput={(value) => (source.value = value)}
          />
        ) : (
          <div class="columns">
            <FileField label="cfg.json" accept=".json,application/json" onChange={(file) => (cfg.value = file)} />
            <FileField label="sae_weights.safetensors" accept=".safetensors" onChange={(file) => (weights.value = file)} />
          </div>
        )}
        {load.error !== undefined && <ProblemNote error={load.error} />}
        <div class="buttons">
          <button type="submit" class="primary" disabled={!isComplete || load.isRunning}>
            {load.isRunning ? "Sending …" : "Load"}
          </button>
          <span class="soft">
            Needs the scope <code>admin</code> where there are keys.
          </span>
        </div>
      </form>
      {from.value === "folder" && (
        <CopyAs
          request={{ method: "POST", path: "/v1/saes", body }}
          python={`${pythonClient(location.origin)}\nclient.saes.load(${[body.id, body.model, body.source].map(pythonOf).join(", ")})`}
        />
      )}
    </Opened>
  );
}

function FileField(props: { label: string; accept: string; onChange: (file: File | null) => void }) {
  return (
    <label class="field">
      <span>{props.label}</span>
      <input type="file" accept={props.accept} onChange={(event) => props.onChange(event.currentTarget.files?.[0] ?? null)} />
    </label>
  );
}
