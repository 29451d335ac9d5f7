/** One hook of all caches of a run as a file. */
import { useSignal } from "@preact/signals";
import type { Cache, Run } from "residuum";
import { CopyAs } from "../../components/copy_as";
import { Download } from "../../components/download";
import { Select, TextField, optionsOf } from "../../components/fields";
import { pythonArguments, pythonClient, shellWord } from "../../format/snippets";
import { shortName } from "../../format/hooks";
import { type ParsedLayers, parseLayers } from "../home/layers";

const FORMATS = ["safetensors", "npz", "arrow"] as const;
type ExportFormat = (typeof FORMATS)[number];

export function RunExport({ run, first }: { run: Run; first: Cache }) {
  const hooks = [...new Set(first.hooks.map(({ hook }) => shortName(hook)))];
  const hook = useSignal(hooks.includes("resid_post") ? "resid_post" : (hooks[0] ?? ""));
  const format = useSignal<ExportFormat>("safetensors");
  const layers = useSignal("");
  if (hooks.length === 0) return null;
  const isLayered = first.hooks.some((one) => one.hook.startsWith("blocks.") && shortName(one.hook) === hook.value);
  const parsed: ParsedLayers = isLayered ? parseLayers(layers.value, first.n_layers) : { layers: undefined };
  const chosen = "layers" in parsed ? parsed.layers : undefined;
  const text = chosen === undefined ? undefined : [chosen].flat().join(",");
  const query = new URLSearchParams({ format: format.value, hook: hook.value, ...(text !== undefined && { layers: text }) });
  const path = `/v1/runs/${run.id}/export?${query}`;
  const file = `run.${format.value}`;
  const python = pythonArguments({ run: run.id, hook: hook.value, layers: chosen, format: format.value });
  const layerOption = text === undefined ? "" : ` --layers=${text}`;
  return (
    <section class="card" aria-labelledby="run-export">
      <h2 id="run-export">Export</h2>
      <div class="row">
        <Select
          label="Hook"
          value={hook.value}
          options={optionsOf(hooks)}
          onChange={(value) => {
            hook.value = value;
          }}
        />
        {isLayered && (
          <TextField
            label="Layers"
            value={layers.value}
            placeholder="all that were captured"
            mono
            onInput={(value) => {
              layers.value = value;
            }}
          />
        )}
        <Select<ExportFormat>
          label="Format"
          value={format.value}
          options={optionsOf(FORMATS)}
          onChange={(value) => {
            format.value = value;
          }}
        />
        {"fault" in parsed ? (
          <p class="run-fault" role="status">
            {parsed.fault}
          </p>
        ) : (
          <Download path={path}>Download</Download>
        )}
      </div>
      <CopyAs
        request={{ path, output: file }}
        python={`${pythonClient(location.origin)}\nclient.export("${file}", ${python})`}
        cli={`residuum export --run ${run.id} --hook ${shellWord(hook.value)}${layerOption} --format ${format.value} -o ${file}`}
      />
    </section>
  );
}
