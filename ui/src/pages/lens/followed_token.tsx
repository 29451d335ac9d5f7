/** One token through the layers at a position: its probability and its rank. */
import { Choice } from "../../components/fields";
import { DataTable, Picture } from "../../components/data_table";
import { LineChart } from "../../components/line_chart";
import { exact } from "../../format/numbers";
import { visible } from "../../format/tokens";
import { queryChoice, setQuery } from "../../router/location";
import type { Lens } from "./lens_values";

export function FollowedToken({ lens, column, follow }: { lens: Lens; column: number; follow: string }) {
  const what = queryChoice("line", ["probability", "rank"]);
  if (!follow || !lens.tokens[0]) {
    return (
      <section class="card" aria-label="Followed token">
        <h2>A token through the layers</h2>
        <p class="soft">Choose one of the tokens beside, or type one above: it must be exactly one token, its space included.</p>
      </section>
    );
  }
  const token = visible(lens.tokens[0].token);
  const found = lens.values.map((positions) => positions[column]?.tokens[0]);
  const values = found.map((one) => (one ? (what === "rank" ? one.rank + 1 : one.probability) : null));
  const where = visible(lens.position_tokens[column] ?? "");
  return (
    <Picture
      name="followed"
      title={`${token} after ${where}`}
      controls={
        <Choice
          label="What the line shows"
          value={what}
          options={[
            { value: "probability", label: "Probability" },
            { value: "rank", label: "Rank" },
          ]}
          onChange={(value) => setQuery({ line: value === "probability" ? null : value }, { replace: true })}
        />
      }
      picture={
        <LineChart
          label={`${what} of ${token} through the layers`}
          x={lens.layers}
          xLabel="layer"
          yLabel={what === "rank" ? "rank (1 is the top)" : "probability"}
          lines={[{ label: token, values }]}
          isLog={what === "rank"}
          height={230}
        />
      }
      table={() => (
        <DataTable
          caption={`${token} through the layers`}
          columns={["Layer", "Rank (0 is the top)", "Probability", "Logit"]}
          length={lens.layers.length}
          row={(i) => [lens.layers[i], found[i]?.rank, exact(found[i]?.probability), exact(found[i]?.logit)]}
        />
      )}
    />
  );
}
