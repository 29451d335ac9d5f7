/** How to continue the text, and how to find the run again. */
import { Select, TextArea, TextField, optionsOf } from "../../components/fields";
import type { ReadyModel } from "../../server/catalogue";
import type { Faults, RunForm } from "./form";
import { Fault } from "./home_page";

interface Props {
  form: RunForm;
  set: (change: Partial<RunForm>) => void;
  faults: Faults;
}

const NAMES = {
  newTokens: "New tokens",
  temperature: "Temperature",
  seed: "Seed",
  topP: "Top p",
  samples: "Samples",
  stop: "Stop at",
} as const;

export function GenerationFields({ model, form, set, faults }: Props & { model: ReadyModel }) {
  if (model.bidirectional) return null;
  return (
    <section class="card" aria-labelledby="generate">
      <h2 id="generate">Generate</h2>
      <div class="row">
        <TextField label="New tokens" value={form.newTokens} placeholder="none" onInput={(newTokens) => set({ newTokens })} />
        <TextField label="Temperature" value={form.temperature} placeholder="0" onInput={(temperature) => set({ temperature })} />
        <TextField label="Seed" value={form.seed} placeholder="random" onInput={(seed) => set({ seed })} />
        <TextField label="Top p" value={form.topP} placeholder="1" onInput={(topP) => set({ topP })} />
        <TextField label="Samples" value={form.samples} placeholder="1" onInput={(samples) => set({ samples })} />
        <TextField label="Stop at" value={form.stop} placeholder="\n" mono onInput={(stop) => set({ stop })} />
      </div>
      {(["newTokens", "temperature", "seed", "topP", "samples", "stop"] as const).map((name) => (
        <Fault key={name} faults={faults} of={name} label={NAMES[name]} />
      ))}
      <p class="soft">Empty: the text is only read. What is captured covers the continuation, too.</p>
    </section>
  );
}

export function StorageFields({ form, set, faults }: Props) {
  return (
    <section class="card" aria-labelledby="find-again">
      <h2 id="find-again">To find it again</h2>
      <div class="row">
        <TextField label="Tags" placeholder="a, b" value={form.tags} onInput={(tags) => set({ tags })} />
        <TextField label="Label" value={form.label} onInput={(label) => set({ label })} />
        <Select
          label="Priority"
          value={form.priority}
          options={optionsOf(["interactive", "normal", "bulk"] as const)}
          onChange={(priority) => set({ priority })}
        />
        <TextArea
          label="Metadata, one key=value per line"
          rows={2}
          value={form.metadata}
          onInput={(metadata) => set({ metadata })}
        />
      </div>
      {(["tags", "label", "priority", "metadata"] as const).map((name) => (
        <Fault key={name} faults={faults} of={name} />
      ))}
    </section>
  );
}
