/** All caches: search, filter, select, and do something with the selected ones. */
import { useSignal } from "@preact/signals";
import { queryString } from "residuum";
import { useEffect } from "preact/hooks";
import { CopyAs } from "../../components/copy_as";
import { PageHeader } from "../../components/page_header";
import { Empty, ProblemNote } from "../../components/problem";
import { VirtualList } from "../../components/virtual_list";
import { count } from "../../format/numbers";
import { pythonClient } from "../../format/snippets";
import { ago, dateTime } from "../../format/time";
import { preview } from "../../format/tokens";
import { go, href, place } from "../../router/location";
import { Link } from "../../router/link";
import { commandFilter, conditionsOf, filterOf, pythonFilter } from "./filter";
import { FilterFields } from "./filter_fields";
import { type Row, useList } from "./pages";
import { moved, NOTHING, type Selection, toggled } from "./selection";
import { SelectionBar } from "./selection_bar";
import "./caches.css";

const ROW_HEIGHT = 44;
/** The server counts no further. */
const COUNTED = 5_000;

export function CachesPage() {
  const filter = filterOf(place.value.query);
  const conditions = conditionsOf(filter);
  const list = useList(conditions);
  const selection = useSignal<Selection>(NOTHING);
  const key = JSON.stringify(conditions);
  useEffect(() => {
    selection.value = NOTHING;
  }, [key]);

  const { rows, total, isExact } = list;
  const idOf = (index: number) => rows[index]?.id;
  const isFiltered = Object.keys(conditions).length > 0;
  const onKeyDown = (event: KeyboardEvent) => {
    const { current } = selection.value;
    const next = moved(event.key, current, total ?? rows.length);
    if (next !== undefined) {
      selection.value = event.shiftKey
        ? toggled(selection.value, next, idOf, true)
        : { ...selection.value, current: next, anchor: next };
    } else if (event.key === " ") selection.value = toggled(selection.value, current, idOf, event.shiftKey);
    else if (event.key === "Enter" && event.target === event.currentTarget) {
      const id = idOf(current);
      if (id) go(href(`/caches/${id}`));
      return;
    } else return;
    event.preventDefault();
  };
  return (
    <>
      <PageHeader
        title="Caches"
        actions={
          <CopyAs
            request={{ path: `/v1/caches${queryString(conditions)}` }}
            python={`${pythonClient(location.origin)}\nfor cache in client.caches(${pythonFilter(conditions)}):\n    print(cache.id, cache.text)`}
            cli={`residuum caches ls ${commandFilter(filter)}`.trim()}
          />
        }
      >
        The stored activations of one text each, newest first.
      </PageHeader>
      <FilterFields filter={filter} />
      {list.error !== undefined && <ProblemNote error={list.error} onRetry={list.reload} />}
      <SelectionBar
        ids={[...selection.value.ids]}
        filter={filter}
        conditions={conditions}
        total={total}
        isExact={isExact}
        onClear={() => (selection.value = NOTHING)}
        onChange={list.reload}
      />
      {total === 0 ? (
        <Empty title={isFiltered ? "No cache matches" : "Nothing is stored yet"}>
          {isFiltered ? <Link to={href("/caches")}>Show all caches</Link> : <Link to={href("/")}>Capture a text</Link>}
        </Empty>
      ) : total === undefined ? (
        list.isLoading && <p class="loading">Loading caches …</p>
      ) : (
        <VirtualList
          label="Caches"
          length={total}
          rowHeight={ROW_HEIGHT}
          height="calc(100vh - 265px)"
          onVisible={(_, last) => list.reach(last)}
          grid={{
            current: Math.min(selection.value.current, Math.max(0, total - 1)),
            isSelected: (index) => selection.value.ids.has(idOf(index) ?? ""),
            onKeyDown,
          }}
          row={(index) => (
            <CacheRow
              row={rows[index]}
              isSelected={selection.value.ids.has(idOf(index) ?? "")}
              onToggle={(isRange) => {
                selection.value = toggled(selection.value, index, idOf, isRange);
              }}
            />
          )}
        />
      )}
      <p class="soft caches-total">
        {total !== undefined &&
          total > 0 &&
          `${isExact ? "" : "At least "}${count(isExact ? total : Math.max(rows.length, COUNTED))} in all. Arrow keys move, Space selects, Enter opens.`}
      </p>
    </>
  );
}

function CacheRow({
  row,
  isSelected,
  onToggle,
}: {
  row: Row | undefined;
  isSelected: boolean;
  onToggle: (isRange: boolean) => void;
}) {
  if (!row) {
    return (
      <div class="cache-row" role="gridcell">
        <span class="soft">…</span>
      </div>
    );
  }
  const text = preview(row.text ?? "", 140) || row.id;
  return (
    <div class="cache-row">
      <div role="gridcell">
        <input
          type="checkbox"
          tabIndex={-1}
          aria-label={`Select ${text}`}
          checked={isSelected}
          onClick={(event) => {
            onToggle(event.shiftKey);
          }}
        />
      </div>
      <div role="gridcell" class="cache-row-text">
        <Link to={href(`/caches/${row.id}`)} tabIndex={-1}>
          <bdi>{text}</bdi>
        </Link>
      </div>
      <div role="gridcell" class="cache-row-tags">
        {row.pinned && <span class="tag">pinned</span>}
        {row.label != null && (
          <span class="tag tag-label">
            <bdi>{row.label}</bdi>
          </span>
        )}
        {row.tags.slice(0, 3).map((tag) => (
          <span key={tag} class="tag">
            <bdi>{tag}</bdi>
          </span>
        ))}
      </div>
      <div role="gridcell" class="cache-row-model soft">
        {row.model}
      </div>
      <div role="gridcell" class="cache-row-n soft number">
        {count(row.n_tokens)} tok
      </div>
      <div role="gridcell" class="cache-row-age soft" title={dateTime(row.created_at)}>
        {ago(Date.parse(row.created_at))}
      </div>
    </div>
  );
}
