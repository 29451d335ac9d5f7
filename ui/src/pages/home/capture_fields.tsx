/** What to capture: hooks in groups, layers, positions. */
import { Check, Select, TextField, optionsOf } from "../../components/fields";
import { ProblemNote } from "../../components/problem";
import { type ReadyModel, useModel } from "../../server/catalogue";
import type { Faults, RunForm } from "./form";
import { Fault } from "./home_page";
import { type HookChoice, hookGroups } from "./hooks";

interface Props {
  model: ReadyModel;
  form: RunForm;
  set: (change: Partial<RunForm>) => void;
  faults: Faults;
}

/** What each page of the dashboard can show needs these. */
const PRESETS = [
  { label: "Residual stream", hooks: ["resid_post"] },
  { label: "and attention", hooks: ["resid_post", "attn.pattern"] },
  { label: "and what each part adds", hooks: ["embed", "resid_post", "attn_out", "mlp_out", "attn.pattern", "logits"] },
];

export function CaptureFields({ model, form, set, faults }: Props) {
  const described = useModel(model.id);
  const groups = described.value?.status === "ready" ? hookGroups(described.value) : [];
  const chosen = new Set(form.hooks.map((name) => (name === "embed" ? "hook_embed" : name)));
  const toggle = ({ name }: HookChoice) =>
    set({ hooks: chosen.has(name) ? [...chosen].filter((other) => other !== name) : [...chosen, name] });
  const usual = model.bidirectional ? "the mean over all positions" : "the last position";
  return (
    <section class="card" aria-labelledby="capture">
      <h2 id="capture">Capture</h2>
      <div class="row capture-where">
        <TextField
          label="Layers"
          value={form.layers}
          placeholder="all"
          mono
          hint={`0 to ${model.n_layers - 1}: all, or such as 0,6,12:20, ::3`}
          onInput={(layers) => set({ layers })}
        />
        <TextField
          label="Positions"
          value={form.positions}
          placeholder={model.bidirectional ? "mean" : "last"}
          mono
          choices={["last", "all", "mean", "0:4", "-1", '{"special":false}', ...(form.newTokens ? ["prompt", "generated"] : [])]}
          hint={form.positions === "" ? `Empty: ${usual}` : "last, all, mean, 0,3,-1, 1:8, text:Tower, JSON; or click tokens"}
          onInput={(positions) => set({ positions })}
        />
        <Select
          label="Stored as"
          value={form.dtype}
          options={optionsOf(["float32", "float16", "bfloat16"] as const)}
          onChange={(dtype) => set({ dtype })}
        />
      </div>
      <Fault faults={faults} of="layers" />
      <Fault faults={faults} of="positions" />
      <Fault faults={faults} of="dtype" />
      <Fault faults={faults} of="hooks" />
      <div class="row presets">
        {PRESETS.map(({ label, hooks }) => (
          <button key={label} type="button" class="quiet" onClick={() => set({ hooks, positions: form.positions || "all" })}>
            {label}
          </button>
        ))}
        {form.hooks.length > 0 && (
          <button type="button" class="quiet" onClick={() => set({ hooks: [] })}>
            Clear
          </button>
        )}
      </div>
      {form.hooks.length === 0 && <p class="soft">Nothing chosen: the residual stream after every block.</p>}
      {described.error !== undefined && <ProblemNote error={described.error} onRetry={described.reload} />}
      {groups.map(({ title, hooks }, index) => (
        <details key={title} class="hook-group" open={index === 0 || hooks.some(({ name }) => chosen.has(name))}>
          <summary>
            {title}{" "}
            <span class="soft">
              {hooks.filter(({ name }) => chosen.has(name)).length} of {hooks.length}
            </span>
          </summary>
          <div class="hook-list">
            {hooks.map((hook) => (
              <Check
                key={hook.name}
                checked={chosen.has(hook.name)}
                onChange={() => toggle(hook)}
                label={
                  <>
                    <code>{hook.name}</code> <span class="soft">{hook.shape}</span>
                  </>
                }
              />
            ))}
          </div>
        </details>
      ))}
    </section>
  );
}
