/** The features that are most active at the tokens of a cache. */
import { sequential } from "../../colour/scale";
import { theme } from "../../colour/theme";
import { DataTable, Picture } from "../../components/data_table";
import { Heatmap } from "../../components/heatmap";
import { Legend } from "../../components/legend";
import { Empty } from "../../components/problem";
import { TokenStrip } from "../../components/token_strip";
import { exact, percent, significant } from "../../format/numbers";
import { visible } from "../../format/tokens";
import { href, setQuery } from "../../router/location";
import { Link } from "../../router/link";
import { type Found, gridOf, largestOf } from "./feature_values";

const MOST_FEATURES = 60;

export function TokenFeatures({ found, feature }: { found: Found; feature: number }) {
  const { positions, summary, warnings } = found;
  const grid = gridOf(found, MOST_FEATURES);
  const columns = positions.length;
  const scale = sequential(0, largestOf(found), theme.value);
  const token = (column: number) => visible(positions[column]?.token ?? "");
  const row = grid.features.indexOf(feature);
  const { explained_variance: explained, n_active: active } = summary.all;
  if (grid.features.length === 0) return <Empty title="No feature is active at these tokens" />;
  return (
    <>
      {warnings.map(({ code, detail }) => (
        <p key={code} class="banner features-warning">
          {detail}
        </p>
      ))}
      {row >= 0 && (
        <Picture
          name="strip"
          title={`Feature ${feature} at each token`}
          controls={<Legend scale={scale} unit="activation" />}
          picture={
            <TokenStrip
              label={`Tokens, coloured by the activation of feature ${feature}`}
              tokens={positions.map((one) => ({
                text: one.token,
                id: one.position,
                isSpecial: one.special ?? false,
              }))}
              values={grid.values.subarray(row * columns, (row + 1) * columns)}
              scale={scale}
              describe={(column) =>
                `${token(column)} (position ${positions[column]?.position})\nactivation ${significant(grid.values[row * columns + column] as number)}`
              }
            />
          }
          table={() => (
            <DataTable
              caption={`Feature ${feature} at each token`}
              columns={["Position", "Token", "Activation"]}
              isNumber={(column) => column !== 1}
              length={columns}
              row={(i) => [positions[i]?.position, token(i), exact(grid.values[row * columns + i])]}
            />
          )}
        />
      )}
      <Picture
        name="features"
        title={`The ${grid.features.length} most active features`}
        note={
          <>
            {active != null && `${significant(active)} features are active at a token on average`}
            {explained != null && explained >= 0 && `, and explain ${percent(explained)} of the variance`}. The first token, often
            an attention sink, is left out of order and scale. Choose a row to see its feature.{" "}
            <Link to={href(`/caches/${found.cache}`)}>The cache</Link>
          </>
        }
        controls={<Legend scale={scale} unit="activation" />}
        picture={
          <Heatmap
            label="Activations of features, features by tokens"
            rows={grid.features.length}
            columns={columns}
            values={grid.values}
            scale={scale}
            rowAxis="feature"
            columnAxis="token"
            rowLabel={(r) => String(grid.features[r])}
            columnLabel={token}
            describe={({ row: r, column }) =>
              `Feature ${grid.features[r]} at ${token(column)} (position ${positions[column]?.position})\nactivation ${significant(grid.values[r * columns + column] as number)}`
            }
            minCell={{ width: 14, height: 15 }}
            maxCell={{ width: 56, height: 18 }}
            maxHeight={640}
            selected={row >= 0 ? { row, column: 0 } : null}
            onSelect={({ row: r }) => setQuery({ feature: grid.features[r] })}
          />
        }
        table={() => (
          <DataTable
            caption="The most active features of each token"
            columns={["Position", "Token", "Feature", "Activation"]}
            isNumber={(column) => column !== 1}
            length={positions.reduce((n, { top }) => n + top.length, 0)}
            row={(i) => rowOf(found, i)}
          />
        )}
      />
    </>
  );
}

/** Row `i` of the list of all positions' top features. */
function rowOf({ positions }: Found, i: number): (string | number)[] {
  let rest = i;
  for (const { position, token, top } of positions) {
    const one = top[rest];
    if (one) return [position, visible(token), one.feature, exact(one.activation)];
    rest -= top.length;
  }
  return [];
}
