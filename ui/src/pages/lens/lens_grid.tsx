/** The lens as a grid: layers upwards, positions to the right, the top token in each cell. */
import { theme } from "../../colour/theme";
import { DataTable, Picture } from "../../components/data_table";
import { type Cell, Heatmap } from "../../components/heatmap";
import { Legend } from "../../components/legend";
import { exact } from "../../format/numbers";
import { visible } from "../../format/tokens";
import { setQuery } from "../../router/location";
import { describeCell, gridOf, labelOf, layerOfRow, type Lens, type Measure, scaleOf, UNITS } from "./lens_values";

export function LensGrid(props: { lens: Lens; measure: Measure; selected: { index: number; column: number } }) {
  const { lens, measure, selected } = props;
  const rows = lens.layers.length;
  const columns = lens.positions.length;
  const grid = gridOf(lens, measure);
  const scale = scaleOf(grid, measure, theme.value);
  const topOf = ({ row, column }: Cell) => lens.values[layerOfRow(lens, row)]?.[column]?.top[0];
  return (
    <Picture
      name="grid"
      title="Most probable next token"
      controls={<Legend scale={scale} unit={UNITS[measure]} format={labelOf(measure)} />}
      note={lens.final_from ? undefined : "The model's own distribution is not stored, so there is no KL divergence."}
      picture={
        <Heatmap
          label="Most probable next token, layers by positions"
          rows={rows}
          columns={columns}
          values={grid}
          scale={scale}
          rowAxis="layer"
          columnAxis="position"
          rowLabel={(row) => String(lens.layers[layerOfRow(lens, row)])}
          columnLabel={(column) => visible(lens.position_tokens[column] ?? "")}
          cellText={(cell) => visible(topOf(cell)?.token ?? "")}
          describe={({ row, column }) => describeCell(lens, row, column, measure)}
          minCell={{ width: columns > 24 ? 34 : 46, height: 19 }}
          maxCell={{ width: 96, height: 22 }}
          maxHeight={760}
          selected={{ row: layerOfRow(lens, selected.index), column: selected.column }}
          onSelect={({ row, column }) =>
            setQuery({ layer: lens.layers[layerOfRow(lens, row)], position: lens.positions[column] }, { replace: true })
          }
        />
      }
      table={() => (
        <DataTable
          caption="Top token, its probability, entropy and KL divergence of each layer and position"
          columns={["Layer", "Position", "Token there", "Top token", "Probability", "Entropy (nats)", "KL (nats)"]}
          isNumber={(column) => column < 2 || column > 3}
          length={rows * columns}
          row={(i) => {
            const index = layerOfRow(lens, Math.floor(i / columns));
            const column = i % columns;
            const found = lens.values[index]?.[column];
            return [
              lens.layers[index],
              lens.positions[column],
              visible(lens.position_tokens[column] ?? ""),
              visible(found?.top[0]?.token ?? ""),
              exact(found?.top[0]?.probability),
              exact(found?.entropy),
              found?.kl == null ? "–" : exact(found.kl),
            ];
          }}
        />
      )}
    />
  );
}
