/** A logit, or the difference of two, as the sum of what each part of the model adds to the residual stream. */
import type { Cache } from "residuum";
import { ResiduumError } from "residuum";
import { CopyAs } from "../../components/copy_as";
import { DataTable, Picture } from "../../components/data_table";
import { Choice } from "../../components/fields";
import { Loaded, ProblemNote } from "../../components/problem";
import { exact, significant } from "../../format/numbers";
import { pythonArguments, pythonClient } from "../../format/snippets";
import { visible } from "../../format/tokens";
import { queryChoice, queryText, setQuery } from "../../router/location";
import { client } from "../../server/client";
import { useResource } from "../../server/resource";
import { type Attributed, partName, shownParts } from "./attribution_values";
import { CaptureParts } from "./capture_parts";
import { tokenRef } from "./lens_page";
import type { Lens } from "./lens_values";

const MOST = 24;

export function Attribution(props: { cache: Cache; lens: Lens; column: number; follow: string }) {
  const { cache, lens, column, follow } = props;
  const against = queryText("against");
  const top = lens.values.at(-1)?.[column]?.top[0]?.id;
  const token = follow ? tokenRef(follow) : top;
  const position = lens.positions[column] as number;
  const body = { token: token as number | string, position, ...(against && { against: tokenRef(against) }) };
  const key = token === undefined ? null : JSON.stringify([cache.id, body]);
  const parts = useResource(key, (signal) =>
    client.post("/v1/caches/{id}/attribution", { params: { path: { id: cache.id } }, body, signal }),
  );
  if (token === undefined) return null;
  const lacks = parts.error instanceof ResiduumError && parts.error.code === "hook_not_stored";
  return (
    <section class="lens-attribution" aria-label="Attribution">
      <div class="row">
        <h2>What each part adds to the logit</h2>
        <span class="spacer" />
        <form
          class="lens-follow"
          onSubmit={(event) => {
            event.preventDefault();
            const text = new FormData(event.currentTarget).get("against");
            setQuery({ against: typeof text === "string" ? text : null });
          }}
        >
          <label class="field">
            <span>Difference to the logit of</span>
            <input key={against} name="against" class="mono" defaultValue={against} placeholder=" Rome, or #7268" />
          </label>
          <button type="submit">Compare</button>
        </form>
        <CopyAs
          request={{ method: "POST", path: `/v1/caches/${cache.id}/attribution`, body }}
          python={`${pythonClient(location.origin)}\nparts = client.cache("${cache.id}").logit_attribution(${pythonArguments({ answer: token, against: body.against, position })})`}
        />
      </div>
      {lacks ? (
        <div class="empty">
          <strong>This cache lacks what the parts are made of</strong>
          <p>{(parts.error as ResiduumError).detail}</p>
          <CaptureParts cache={cache} />
        </div>
      ) : parts.error !== undefined ? (
        <ProblemNote error={parts.error} onRetry={parts.reload} />
      ) : (
        <Loaded of={parts} what="parts">
          {(value) => <Bars found={value} />}
        </Loaded>
      )}
    </section>
  );
}

function Bars({ found }: { found: Attributed }) {
  const order = queryChoice("order", ["size", "pass"]);
  const shown = shownParts(found.parts, order, MOST);
  const largest = Math.max(1e-9, ...found.parts.map(({ value }) => Math.abs(value ?? 0)));
  const name = `${visible(found.token.token)}${found.against ? ` − ${visible(found.against.token)}` : ""}`;
  return (
    <Picture
      name="parts"
      title={`Logit of ${name} at position ${found.position}`}
      note={`${significant(found.logit ?? Number.NaN, 5)} in all; the parts sum to ${significant(found.sum ?? Number.NaN, 5)}. The final norm's denominator is held at its value.${found.softcap == null ? "" : ` After the softcap ${significant(found.logit_after_softcap ?? Number.NaN, 5)}.`}`}
      controls={
        <Choice
          label="Order"
          value={order}
          options={[
            { value: "size", label: "Largest" },
            { value: "pass", label: "By layer" },
          ]}
          onChange={(value) => setQuery({ order: value === "size" ? null : value }, { replace: true })}
        />
      }
      picture={
        <ul class="parts" tabIndex={0} aria-label={`Parts of the logit of ${name}`}>
          {shown.map((part) => {
            const value = part.value ?? Number.NaN;
            const width = `${Number.isNaN(value) ? 0 : (Math.abs(value) / largest) * 50}%`;
            return (
              <li key={`${part.name} ${part.layer} ${part.head} ${part.kind}`}>
                <span class="part-name">{partName(part)}</span>
                <span class="part-track" aria-hidden="true">
                  <span
                    class={value < 0 ? "part-bar part-less" : "part-bar part-more"}
                    style={value < 0 ? { right: "50%", width } : { left: "50%", width }}
                  />
                </span>
                <span class="number">{significant(value)}</span>
              </li>
            );
          })}
          {shown.length < found.parts.length && (
            <li class="soft parts-rest">The {found.parts.length - shown.length} smaller parts are in the table.</li>
          )}
        </ul>
      }
      table={() => (
        <DataTable
          caption={`Parts of the logit of ${name}`}
          columns={["Part", "Kind", "Layer", "Head", "Contribution to the logit"]}
          isNumber={(column) => column > 1}
          length={found.parts.length}
          row={(i) => {
            const part = found.parts[i];
            return [part?.name, part?.kind, part?.layer ?? "–", part?.head ?? "–", exact(part?.value)];
          }}
        />
      )}
    />
  );
}
