/** A plain table, and the switch between a picture and its table. */
import type { ComponentChildren } from "preact";
import { queryText, setQuery } from "../router/location";

export interface DataTableProps {
  caption: string;
  columns: readonly string[];
  /** Number of rows. */
  length: number;
  /** The cells of a row; the first one names it. */
  row: (index: number) => readonly ComponentChildren[];
  /** Columns with numbers are aligned to the right; by default all but the first. */
  isNumber?: (column: number) => boolean;
}

/** Rows beyond this are left out, and the table says so: whole matrices are to be fetched from the API. */
const MOST_ROWS = 2_000;

export function DataTable({ caption, columns, length, row, isNumber = (column) => column > 0 }: DataTableProps) {
  const shown = Math.min(length, MOST_ROWS);
  return (
    <div class="table-box" tabIndex={0} role="region" aria-label={caption}>
      <table>
        <caption class="unseen">{caption}</caption>
        <thead>
          <tr>
            {columns.map((name, i) => (
              <th key={i} scope="col" class={isNumber(i) ? "number" : undefined}>
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {Array.from({ length: shown }, (_, index) => (
            <tr key={index}>
              {row(index).map((cell, i) =>
                i === 0 ? (
                  <th key={i} scope="row" class={isNumber(i) ? "number" : undefined}>
                    {cell}
                  </th>
                ) : (
                  <td key={i} class={isNumber(i) ? "number" : undefined}>
                    {cell}
                  </td>
                ),
              )}
            </tr>
          ))}
        </tbody>
      </table>
      {shown < length && (
        <p class="soft">
          The first {shown} of {length} rows.
        </p>
      )}
    </div>
  );
}

/**
 * A picture that can be read as a table: `table=NAME` in the query. `controls` stand beside the switch, such as a legend.
 */
export function Picture(props: {
  name: string;
  title: string;
  picture: ComponentChildren;
  table: () => ComponentChildren;
  controls?: ComponentChildren;
  note?: ComponentChildren;
}) {
  const { name, title, picture, table, controls, note } = props;
  const isTable = queryText("table") === name;
  return (
    <figure class="picture">
      <figcaption>
        <h3>{title}</h3>
        <span class="spacer" />
        {controls}
        <button type="button" class="quiet" aria-pressed={isTable} onClick={() => setQuery({ table: isTable ? null : name })}>
          As table
        </button>
      </figcaption>
      {note && <p class="soft">{note}</p>}
      {isTable ? table() : picture}
    </figure>
  );
}
