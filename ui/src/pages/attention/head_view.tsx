/** One head in full: its map, and the weights of one query over the tokens. */
import type { Cache } from "residuum";
import { sequential } from "../../colour/scale";
import { theme } from "../../colour/theme";
import { DataTable, Picture } from "../../components/data_table";
import { Heatmap } from "../../components/heatmap";
import { Legend } from "../../components/legend";
import { TokenStrip } from "../../components/token_strip";
import { exact, percent } from "../../format/numbers";
import { visible } from "../../format/tokens";
import { queryInteger, setQuery } from "../../router/location";
import { headOf, largest, type Pattern, rowOf } from "./attention_values";

export function HeadView(props: { cache: Cache; pattern: Pattern; layer: number; head: number }) {
  const { cache, pattern, layer, head } = props;
  const { nQueries, nKeys, queries } = pattern;
  const scale = sequential(0, 1, theme.value);
  const values = headOf(pattern, head);
  const tokenAt = (position: number) => visible(cache.tokens[position] ?? "");
  const given = queries.indexOf(queryInteger("query", -1));
  const row = given < 0 ? nQueries - 1 : given;
  const weights = rowOf(pattern, head, row);
  const query = queries[row] as number;
  const seen = largest(weights, 3)
    .map((key) => `${tokenAt(key)} ${percent(weights[key] as number)}`)
    .join(", ");
  return (
    <>
      <Picture
        name="head"
        title={`Head ${layer}.${head}`}
        controls={<Legend scale={scale} unit="attention weight" format={percent} />}
        picture={
          <Heatmap
            label={`Attention of head ${layer}.${head}, queries by keys`}
            rows={nQueries}
            columns={nKeys}
            values={values}
            scale={scale}
            rowAxis="query"
            columnAxis="key"
            rowLabel={(r) => tokenAt(queries[r] as number)}
            columnLabel={tokenAt}
            describe={({ row: r, column }) =>
              `${tokenAt(queries[r] as number)} (${queries[r]}) looks at ${tokenAt(column)} (${column}): ${percent(values[r * nKeys + column] as number)}`
            }
            minCell={{ width: 13, height: 13 }}
            maxCell={{ width: 42, height: 22 }}
            maxHeight={620}
            selected={{ row, column: largest(weights, 1)[0] ?? 0 }}
            onSelect={({ row: r }) => setQuery({ query: queries[r] }, { replace: true })}
          />
        }
        table={() => (
          <DataTable
            caption={`Weights of head ${layer}.${head}`}
            columns={["Query", "Token", "Key", "Token", "Weight"]}
            isNumber={(column) => column === 0 || column === 2 || column === 4}
            length={nQueries * nKeys}
            row={(i) => {
              const r = Math.floor(i / nKeys);
              const key = i % nKeys;
              return [queries[r], tokenAt(queries[r] as number), key, tokenAt(key), exact(values[i])];
            }}
          />
        )}
      />
      <section class="card" aria-labelledby="attention-query">
        <h2 id="attention-query">
          Where <code>{tokenAt(query)}</code> (position {query}) looks
        </h2>
        <TokenStrip
          label="Tokens, coloured by the weight that the query gives them: a click chooses another query"
          tokens={cache.tokens.map((text, i) => ({ text, id: cache.token_ids[i] as number }))}
          values={Array.from(weights)}
          scale={scale}
          selected={new Set([query])}
          onSelect={(position) => {
            if (queries.includes(position)) setQuery({ query: position }, { replace: true });
          }}
          describe={(position) => `${tokenAt(position)} (${position}): ${percent(weights[position] ?? 0)}`}
        />
        <p class="soft attention-most">Most of it: {seen}</p>
      </section>
    </>
  );
}
