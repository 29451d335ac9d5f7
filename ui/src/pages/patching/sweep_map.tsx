/** The effect of each cell as a heat map, which fills while it is computed. */
import { diverging, extentOf } from "../../colour/scale";
import { theme } from "../../colour/theme";
import { DataTable, Picture } from "../../components/data_table";
import { Choice } from "../../components/fields";
import { type Cell, Heatmap } from "../../components/heatmap";
import { Legend } from "../../components/legend";
import { counted, exact, significant } from "../../format/numbers";
import { visible } from "../../format/tokens";
import { queryChoice, queryInteger, setQuery } from "../../router/location";
import { type Matrix, slices } from "./sweep";

export function SweepMap({ matrix, isRunning }: { matrix: Matrix; isRunning: boolean }) {
  const { about, layers, columns } = matrix;
  const canNormalize = about.normalized != null;
  const given = queryChoice("show", ["normalized", "effect"]);
  const show = canNormalize ? given : "effect";
  const shown = show === "normalized" ? matrix.normalized : matrix.effect;
  const n = layers.length;
  // Layers grow upwards.
  const grid = new Float64Array(n * columns);
  for (let row = 0; row < n; row++) grid.set(shown.subarray((n - 1 - row) * columns, (n - row) * columns), row * columns);
  const { min, max } = extentOf(grid);
  const scale = diverging(Math.max(-min, max), theme.value);
  const isHeads = about.heads != null;
  const columnName = (column: number) =>
    isHeads ? `head ${about.heads?.[column]}` : visible(about.clean_tokens[about.positions?.[column] ?? column] ?? "");
  const indexOf = ({ row, column }: Cell) => (n - 1 - row) * columns + column;
  const describe = (cell: Cell) => {
    const i = indexOf(cell);
    const where = isHeads
      ? `Layer ${layers[n - 1 - cell.row]}, ${columnName(cell.column)}`
      : `Layer ${layers[n - 1 - cell.row]}, position ${about.positions?.[cell.column]}: ${columnName(cell.column)}${differing(cell.column)}`;
    if (Number.isNaN(matrix.values[i])) return `${where}\nnot computed yet`;
    const part = canNormalize ? `, ${significant(matrix.normalized[i] as number)} of the difference` : "";
    return `${where}\n${about.metric} ${significant(matrix.values[i] as number)}, effect ${significant(matrix.effect[i] as number)}${part}`;
  };
  const differing = (column: number) => {
    const position = about.positions?.[column] ?? column;
    const other = about.corrupt_tokens?.[position];
    return other !== undefined && other !== about.clean_tokens[position] ? ` / ${visible(other)}` : "";
  };
  const layer = layers.indexOf(queryInteger("layer", -1));
  const column = queryInteger("column", -1);
  const selected = layer >= 0 && column >= 0 && column < columns ? { row: n - 1 - layer, column } : null;
  return (
    <>
      <Picture
        name="sweep"
        title={`Effect on ${metricName(matrix)}`}
        note={
          <>
            Clean run {significant(about.clean ?? Number.NaN)}, corrupt run {significant(about.corrupt ?? Number.NaN)}.{" "}
            {about.direction === "noise"
              ? "Each cell puts values of the corrupt run into the clean one."
              : "Each cell puts values of the clean run into the corrupt one."}
            {matrix.nDone < n &&
              ` ${isRunning ? "" : "Stopped: "}${matrix.nDone} of ${n} layers are done; the whole sweep takes ${counted(slices(layers).length, "request")}.`}
          </>
        }
        controls={
          <>
            {canNormalize && (
              <Choice
                label="What the colour shows"
                value={show}
                options={[
                  { value: "normalized", label: "Fraction" },
                  { value: "effect", label: "Difference" },
                ]}
                onChange={(value) => setQuery({ show: value === "normalized" ? null : value }, { replace: true })}
              />
            )}
            <Legend scale={scale} unit={show === "normalized" ? "of the difference of the runs" : metricUnit(about.metric)} />
          </>
        }
        picture={
          <Heatmap
            label={`Effect of patching ${about.hook}, layers by ${isHeads ? "heads" : "positions"}`}
            rows={n}
            columns={columns}
            values={grid}
            scale={scale}
            rowAxis="layer"
            columnAxis={isHeads ? "head" : "position"}
            rowLabel={(row) => String(layers[n - 1 - row])}
            columnLabel={(c) => (isHeads ? String(about.heads?.[c]) : columnName(c) + differing(c))}
            describe={describe}
            isPending={(cell) => matrix.nDone < n && Number.isNaN(matrix.values[indexOf(cell)])}
            minCell={{ width: 16, height: 16 }}
            maxCell={{ width: 64, height: 21 }}
            maxHeight={760}
            selected={selected}
            onSelect={({ row, column: c }) => setQuery({ layer: layers[n - 1 - row], column: c }, { replace: true })}
          />
        }
        table={() => (
          <DataTable
            caption="Effect of each cell"
            columns={["Layer", isHeads ? "Head" : "Position", "Token", about.metric, "Effect", "Fraction"]}
            isNumber={(c) => c !== 2}
            length={n * columns}
            row={(i) => {
              const c = i % columns;
              const cell = indexOf({ row: Math.floor(i / columns), column: c });
              const number = (value: number | undefined) => (value === undefined || Number.isNaN(value) ? "–" : exact(value));
              return [
                layers[n - 1 - Math.floor(i / columns)],
                isHeads ? about.heads?.[c] : about.positions?.[c],
                isHeads ? "" : columnName(c) + differing(c),
                number(matrix.values[cell]),
                number(matrix.effect[cell]),
                number(matrix.normalized[cell]),
              ];
            }}
          />
        )}
      />
      {selected && (
        <section class="card" aria-label="Chosen cell">
          <p class="sweep-cell">{describe(selected)}</p>
        </section>
      )}
    </>
  );
}

function metricName({ about }: Matrix): string {
  const answer = visible(about.answer.token);
  if (about.metric === "logit_diff") return `the logit of ${answer} less that of ${visible(about.against?.token ?? "")}`;
  return `the ${about.metric.replace("_", "-")} of ${answer}`;
}

function metricUnit(metric: string): string {
  return metric === "probability" ? "probability" : metric === "log_probability" ? "nats" : "logits";
}
