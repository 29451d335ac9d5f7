/** Pictures of comparisons. */
import { diverging, type Scale, scaleFor, sequential } from "../../colour/scale";
import { theme } from "../../colour/theme";
import { DataTable, Picture } from "../../components/data_table";
import { Slider } from "../../components/fields";
import { Heatmap } from "../../components/heatmap";
import { Legend } from "../../components/legend";
import { LineChart } from "../../components/line_chart";
import { Empty } from "../../components/problem";
import { flatNumbers } from "../../format/nested";
import { exact, significant } from "../../format/numbers";
import { queryInteger, setQuery } from "../../router/location";
import type { Schemas } from "../../server/catalogue";
import { isSimilarity, type Metric, rangeOf } from "./compare_form";

type Comparison = Schemas["Comparison"];
type Names = ReadonlyMap<string, string>;

function nameOf(names: Names, id: string | undefined): string {
  return names.get(id ?? "") ?? (id ?? "").slice(0, 8);
}

function scaleOf(values: readonly number[], metric: Metric): Scale {
  const range = rangeOf(metric);
  if (!range) return scaleFor(values, theme.value);
  return range[0] < 0 ? diverging(1, theme.value) : sequential(0, 1, theme.value);
}

function direction(metric: Metric): string {
  return isSimilarity(metric) ? "larger is more alike" : "smaller is more alike";
}

export function Drift({ found, metric, names }: { found: Comparison; metric: Metric; names: Names }) {
  const pairs = found.pairs ?? [];
  if (found.layers.length === 0) return <Empty title="These caches have no layer in common" />;
  const lines = pairs.map(({ b, values }) => ({
    label: nameOf(names, b),
    values: ((values as Record<string, (number | null)[]>)[metric] ?? []) as (number | null)[],
  }));
  const first = nameOf(names, pairs[0]?.a);
  return (
    <Picture
      name="drift"
      title={`${metric} to “${first}”`}
      note={`At each layer, ${direction(metric)}.`}
      picture={
        <LineChart label={`${metric} at each layer`} x={found.layers} xLabel="layer" yLabel={metric} lines={lines} height={380} />
      }
      table={() => (
        <DataTable
          caption={`${metric} at each layer`}
          columns={["Layer", ...lines.map(({ label }) => label)]}
          length={found.layers.length}
          row={(i) => [found.layers[i], ...lines.map(({ values }) => exact(values[i]))]}
        />
      )}
    />
  );
}

export function Similarity({ found, metric, names }: { found: Comparison; metric: Metric; names: Names }) {
  const caches = found.caches ?? [];
  const n = caches.length;
  const all = (found.values as Record<string, unknown[]> | null)?.[metric] ?? [];
  const at = Math.max(0, found.layers.indexOf(queryInteger("layer", found.layers[Math.floor(found.layers.length / 2)] ?? 0)));
  const grid = flatNumbers(all[at]);
  const scale = scaleOf(grid, metric);
  const name = (i: number) => nameOf(names, caches[i]);
  if (found.layers.length === 0) return <Empty title="These caches have no layer in common" />;
  return (
    <Picture
      name="matrix"
      title={`${metric} of all with all at layer ${found.layers[at]}`}
      note={`${direction(metric)}.`}
      controls={
        <>
          <Slider
            label="Layer"
            value={at}
            min={0}
            max={found.layers.length - 1}
            shown={String(found.layers[at])}
            onInput={(value) => setQuery({ layer: found.layers[value] }, { replace: true })}
          />
          <Legend scale={scale} unit={metric} />
        </>
      }
      picture={
        <Heatmap
          label={`${metric} at layer ${found.layers[at]}`}
          rows={n}
          columns={n}
          values={grid}
          scale={scale}
          rowAxis=""
          columnAxis="cache"
          rowLabel={name}
          columnLabel={name}
          describe={({ row, column }) =>
            `${name(row)}\n${name(column)}\n${metric} ${significant(grid[row * n + column] as number, 5)}`
          }
          cellText={n <= 14 ? ({ row, column }) => significant(grid[row * n + column] as number, 2) : undefined}
          minCell={{ width: 12, height: 12 }}
          maxCell={{ width: 54, height: 26 }}
          maxHeight={700}
        />
      }
      table={() => (
        <DataTable
          caption={`${metric} at layer ${found.layers[at]}`}
          columns={["Cache", ...caches.map((_, i) => name(i))]}
          length={n}
          row={(i) => [name(i), ...caches.map((_, j) => exact(grid[i * n + j]))]}
        />
      )}
    />
  );
}

export function LayersByLayers({ found, metric, a, b }: { found: Comparison; metric: Metric; a: string; b: string }) {
  const rows = found.layers;
  const columns = found.layers_b ?? found.layers;
  const grid = flatNumbers((found.values as Record<string, unknown> | null)?.[metric]);
  const scale = scaleOf(grid, metric);
  const n = rows.length;
  const at = (row: number, column: number) => grid[(n - 1 - row) * columns.length + column] as number;
  // Layers grow upwards.
  const flipped = Float64Array.from({ length: grid.length }, (_, i) => at(Math.floor(i / columns.length), i % columns.length));
  return (
    <Picture
      name="layers"
      title={`${metric.replace("_", " ")} of the layers of “${a}” (upwards) and “${b}”`}
      note={`${found.a?.length ?? 0} caches with ${found.b?.length ?? found.a?.length ?? 0}; ${direction(metric)}.`}
      controls={<Legend scale={scale} unit={metric} />}
      picture={
        <Heatmap
          label={`${metric} of layers`}
          rows={n}
          columns={columns.length}
          values={flipped}
          scale={scale}
          rowAxis="layer"
          columnAxis="layer"
          rowLabel={(row) => String(rows[n - 1 - row])}
          columnLabel={(column) => String(columns[column])}
          describe={({ row, column }) =>
            `Layer ${rows[n - 1 - row]} of ${a}, layer ${columns[column]} of ${b}\n${metric} ${significant(at(row, column), 5)}`
          }
          minCell={{ width: 12, height: 12 }}
          maxCell={{ width: 26, height: 20 }}
          maxHeight={760}
        />
      }
      table={() => (
        <DataTable
          caption={`${metric} of layers`}
          columns={[`Layer of ${a}`, ...columns.map((layer) => `${layer} of ${b}`)]}
          length={n}
          row={(i) => [rows[i], ...columns.map((_, j) => exact(grid[i * columns.length + j]))]}
        />
      )}
    />
  );
}
