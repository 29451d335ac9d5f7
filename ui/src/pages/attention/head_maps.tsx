/** Every head of a layer as a small map; a click or the arrow keys choose one. */
import { useEffect, useRef } from "preact/hooks";
import { sequential } from "../../colour/scale";
import { theme } from "../../colour/theme";
import { DataTable, Picture } from "../../components/data_table";
import { exact, percent, significant } from "../../format/numbers";
import { setQuery } from "../../router/location";
import { headOf, type Pattern, summaryOf } from "./attention_values";

export function HeadMaps({ pattern, layer, head }: { pattern: Pattern; layer: number; head: number }) {
  const summaries = Array.from({ length: pattern.nHeads }, (_, i) => summaryOf(pattern, i));
  const list = useRef<HTMLDivElement>(null);
  const choose = (next: number) => {
    const clamped = Math.min(pattern.nHeads - 1, Math.max(0, next));
    setQuery({ head: clamped }, { replace: true });
    (list.current?.children[clamped] as HTMLElement | undefined)?.focus();
  };
  return (
    <Picture
      name="heads"
      title={`Heads of layer ${layer}`}
      note="Rows are queries, columns the tokens that they look at. Below each head, its mean weight on the first and on the previous token."
      picture={
        <div ref={list} class="head-maps" role="group" aria-label={`Heads of layer ${layer}`}>
          {summaries.map((summary, index) => (
            <button
              key={index}
              type="button"
              class="head-map"
              aria-pressed={index === head}
              tabIndex={index === head ? 0 : -1}
              aria-label={`Head ${index}: entropy ${significant(summary.entropy)} nats, first token ${percent(summary.first)}, previous token ${percent(summary.previous)}`}
              onClick={() => choose(index)}
              onKeyDown={(event) => {
                const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
                if (step === undefined) return;
                event.preventDefault();
                choose(index + step);
              }}
            >
              <span>Head {index}</span>
              <SmallMap pattern={pattern} head={index} />
              <small>
                {percent(summary.first)} · {percent(summary.previous)}
              </small>
            </button>
          ))}
        </div>
      }
      table={() => (
        <DataTable
          caption={`Heads of layer ${layer}`}
          columns={["Head", "Entropy (nats)", "Mean distance (tokens)", "On the first token", "On the previous token"]}
          length={pattern.nHeads}
          row={(i) => {
            const { entropy, distance, first, previous } = summaries[i] as (typeof summaries)[number];
            return [i, exact(entropy), exact(distance), exact(first), exact(previous)];
          }}
        />
      )}
    />
  );
}

/** A head as an image of one pixel for each weight, enlarged by the browser; large ones are thinned out. */
function SmallMap({ pattern, head }: { pattern: Pattern; head: number }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const colours = theme.value;
  const { nQueries, nKeys } = pattern;
  const step = Math.max(1, Math.ceil(Math.max(nQueries, nKeys) / 160));
  const height = Math.ceil(nQueries / step);
  const width = Math.ceil(nKeys / step);
  useEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!context) return;
    const scale = sequential(0, 1, colours);
    const values = headOf(pattern, head);
    const image = context.createImageData(width, height);
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) {
        // The largest weight of the cells that share a pixel: a thin line must not vanish.
        let value = 0;
        for (let r = row * step; r < Math.min(nQueries, (row + 1) * step); r++)
          for (let c = column * step; c < Math.min(nKeys, (column + 1) * step); c++)
            value = Math.max(value, values[r * nKeys + c] as number);
        const [red, green, blue] = scale.rgb(value);
        image.data.set([red, green, blue, 255], (row * width + column) * 4);
      }
    }
    context.putImageData(image, 0, 0);
  }, [pattern, head, colours, width, height]);
  return <canvas ref={canvas} width={width} height={height} aria-hidden="true" />;
}
