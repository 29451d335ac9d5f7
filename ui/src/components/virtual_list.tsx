/** A list of any length: only the rows in sight are in the page. All rows have the same height. */
import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useId, useLayoutEffect, useRef } from "preact/hooks";

export interface VirtualListProps {
  label: string;
  length: number;
  /** Height of a row in pixels. */
  rowHeight: number;
  row: (index: number) => ComponentChildren;
  /** Called with the rows in sight, so that they can be loaded. */
  onVisible?: (first: number, last: number) => void;
  /** Height of the list in CSS. */
  height?: string;
  /** A grid has a current row, which is kept in sight, and rows that may be selected; `row` then returns cells. */
  grid?: { current: number; isSelected: (index: number) => boolean; onKeyDown: (event: KeyboardEvent) => void };
}

/** Rows beyond the edge that are kept ready. */
const SPARE = 8;

export function VirtualList({ label, length, rowHeight, row, onVisible, height = "60vh", grid }: VirtualListProps) {
  const box = useRef<HTMLDivElement>(null);
  const id = useId();
  const top = useSignal(0);
  const visible = useSignal(600);
  useLayoutEffect(() => {
    const element = box.current;
    if (!element) return undefined;
    const observer = new ResizeObserver(() => {
      visible.value = element.clientHeight;
    });
    observer.observe(element);
    visible.value = element.clientHeight;
    return () => observer.disconnect();
  }, []);
  const first = Math.max(0, Math.floor(top.value / rowHeight) - SPARE);
  const last = Math.min(length - 1, Math.ceil((top.value + visible.value) / rowHeight) + SPARE);
  useEffect(() => {
    if (length > 0) onVisible?.(first, last);
  }, [first, last, length]);
  const current = grid?.current;
  useEffect(() => {
    const element = box.current;
    if (!element || current === undefined) return;
    const at = current * rowHeight;
    if (at < element.scrollTop) element.scrollTop = at;
    else if (at + rowHeight > element.scrollTop + element.clientHeight) element.scrollTop = at + rowHeight - element.clientHeight;
  }, [current, rowHeight]);
  const rows = [];
  for (let index = first; index <= last; index++) {
    const place = { top: `${index * rowHeight}px`, height: `${rowHeight}px` };
    rows.push(
      grid ? (
        <div
          key={index}
          id={`${id}-${index}`}
          class={index === grid.current ? "virtual-row virtual-current" : "virtual-row"}
          role="row"
          aria-rowindex={index + 1}
          aria-selected={grid.isSelected(index)}
          style={place}
        >
          {row(index)}
        </div>
      ) : (
        <div key={index} class="virtual-row" role="listitem" aria-posinset={index + 1} aria-setsize={length} style={place}>
          {row(index)}
        </div>
      ),
    );
  }
  const inner = (
    <div
      role={grid ? "rowgroup" : "list"}
      aria-label={grid ? undefined : label}
      class="virtual-rows"
      style={{ height: `${length * rowHeight}px` }}
    >
      {rows}
    </div>
  );
  const onScroll = (event: { currentTarget: HTMLElement }) => {
    top.value = event.currentTarget.scrollTop;
  };
  const size = { maxHeight: height, height: `${length * rowHeight + 2}px` };
  return grid ? (
    <div
      ref={box}
      class="virtual-list"
      tabIndex={0}
      role="grid"
      aria-label={label}
      aria-rowcount={length}
      aria-multiselectable={true}
      aria-activedescendant={length > 0 ? `${id}-${grid.current}` : undefined}
      style={size}
      onScroll={onScroll}
      onKeyDown={grid.onKeyDown}
    >
      {inner}
    </div>
  ) : (
    <div ref={box} class="virtual-list" tabIndex={0} role="group" aria-label={label} style={size} onScroll={onScroll}>
      {inner}
    </div>
  );
}
