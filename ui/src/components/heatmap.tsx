/** A matrix of numbers as colours on a canvas: of any size, since only the visible cells are drawn. */
import { useSignal } from "@preact/signals";
import { useEffect, useId, useLayoutEffect, useRef } from "preact/hooks";
import type { Scale } from "../colour/scale";
import { drawHeatmap, type Layout, layoutOf, cellAt, scrollTo } from "./heatmap_drawing";

export interface Cell {
  row: number;
  column: number;
}

export interface HeatmapProps {
  /** What the picture shows, for those who do not see it: "Probability of the top token, layers by positions". */
  label: string;
  rows: number;
  columns: number;
  /** Row-major values; NaN is drawn in a colour of its own. */
  values: ArrayLike<number>;
  scale: Scale;
  rowLabel: (row: number) => string;
  columnLabel: (column: number) => string;
  /** Names of the axes: "layer", "position". */
  rowAxis: string;
  columnAxis: string;
  /** A cell in words, with its value: shown on hover, read out on arrow keys. */
  describe: (cell: Cell) => string;
  /** Text within a cell, drawn where cells are wide enough. */
  cellText?: ((cell: Cell) => string) | undefined;
  /** Cells that are not known yet, such as while a sweep computes: drawn empty. */
  isPending?: ((cell: Cell) => boolean) | undefined;
  /** Smallest size of a cell in pixels; cells grow to fill the width up to `maxCell`. */
  minCell?: { width: number; height: number };
  maxCell?: { width: number; height: number };
  /** Largest height of the picture in pixels; higher ones scroll. */
  maxHeight?: number;
  /** The cell with a frame, such as the one whose details are shown. */
  selected?: Cell | null;
  /** A click, Enter or Space on a cell. */
  onSelect?: (cell: Cell) => void;
  onHover?: (cell: Cell | null) => void;
}

const MIN = { width: 12, height: 14 };
const MAX = { width: 84, height: 26 };

export function Heatmap(props: HeatmapProps) {
  const { label, rows, columns, selected, onSelect, onHover, describe, maxHeight = 560 } = props;
  const box = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const width = useSignal(0);
  const active = useSignal<Cell | null>(null);
  const spoken = useSignal("");
  const tip = useSignal<{ x: number; y: number; text: string } | null>(null);
  const help = useId();

  const layout: Layout = layoutOf({ ...props, minCell: props.minCell ?? MIN, maxCell: props.maxCell ?? MAX }, width.value);
  const latest = useRef({ props, layout });
  latest.current = { props, layout };

  const frame = useRef(0);
  const draw = () => {
    cancelAnimationFrame(frame.current);
    frame.current = requestAnimationFrame(() => {
      const element = canvas.current;
      if (!element || !box.current) return;
      const now = latest.current;
      drawHeatmap(element, box.current, now.layout, now.props, active.peek());
    });
  };

  useLayoutEffect(() => {
    const element = box.current;
    if (!element) return undefined;
    const observer = new ResizeObserver(() => {
      width.value = element.clientWidth;
      draw();
    });
    observer.observe(element);
    width.value = element.clientWidth;
    return () => {
      observer.disconnect();
      cancelAnimationFrame(frame.current);
    };
  }, []);
  useEffect(draw);

  const move = (cell: Cell | null, { speak = false } = {}) => {
    active.value = cell;
    onHover?.(cell);
    if (speak && cell) spoken.value = describe(cell);
    draw();
  };
  const cellOf = (event: MouseEvent): Cell | null => {
    const element = box.current;
    return element ? cellAt(event, element, layout) : null;
  };
  const onPointerMove = (event: MouseEvent) => {
    const cell = cellOf(event);
    if (cell?.row !== active.value?.row || cell?.column !== active.value?.column) move(cell);
    tip.value = cell ? { x: event.clientX, y: event.clientY, text: describe(cell) } : null;
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const from = active.value ?? selected ?? { row: 0, column: 0 };
    const to = neighbour(event.key, from, rows, columns, event.ctrlKey || event.metaKey);
    if (to) {
      event.preventDefault();
      if (box.current) scrollTo(to, box.current, layout);
      move(active.value ? to : from, { speak: true });
    } else if ((event.key === "Enter" || event.key === " ") && active.value) {
      event.preventDefault();
      onSelect?.(active.value);
    }
  };

  return (
    <div class="heatmap">
      <div
        ref={box}
        class="heatmap-box"
        // The picture is one control: arrow keys move within it, and the cell is read out below.
        role="application"
        aria-roledescription="heat map"
        aria-label={`${label}: ${rows} by ${columns}`}
        aria-describedby={help}
        tabIndex={0}
        style={{ maxHeight: `${maxHeight}px` }}
        onScroll={() => {
          tip.value = null;
          draw();
        }}
        onMouseMove={onPointerMove}
        onMouseLeave={() => {
          tip.value = null;
          move(null);
        }}
        onClick={(event) => {
          const cell = cellOf(event);
          if (cell) {
            move(cell, { speak: true });
            onSelect?.(cell);
          }
        }}
        onKeyDown={onKeyDown}
      >
        <canvas ref={canvas} aria-hidden="true" />
        <div class="heatmap-size" style={{ width: `${layout.width}px`, height: `${layout.height}px` }} />
      </div>
      <span id={help} class="unseen">
        Arrow keys move between cells, Home and End along a row.
        {onSelect ? " Enter selects a cell." : ""}
      </span>
      <output class="unseen" aria-live="polite">
        {spoken.value}
      </output>
      {tip.value && <Tip {...tip.value} />}
    </div>
  );
}

/** What the pointer is over, beside it. */
export function Tip({ x, y, text }: { x: number; y: number; text: string }) {
  const right = x > innerWidth * 0.6;
  const low = y > innerHeight * 0.7;
  return (
    <div
      class="tip"
      aria-hidden="true"
      style={{
        left: right ? "auto" : `${x + 14}px`,
        right: right ? `${innerWidth - x + 14}px` : "auto",
        top: low ? "auto" : `${y + 14}px`,
        bottom: low ? `${innerHeight - y + 14}px` : "auto",
      }}
    >
      {text}
    </div>
  );
}

/** The cell that a key leads to; undefined for other keys. */
export function neighbour(key: string, { row, column }: Cell, rows: number, columns: number, far = false): Cell | undefined {
  const clamped = (r: number, c: number): Cell => ({
    row: Math.min(rows - 1, Math.max(0, r)),
    column: Math.min(columns - 1, Math.max(0, c)),
  });
  switch (key) {
    case "ArrowUp":
      return clamped(row - 1, column);
    case "ArrowDown":
      return clamped(row + 1, column);
    case "ArrowLeft":
      return clamped(row, column - 1);
    case "ArrowRight":
      return clamped(row, column + 1);
    case "PageUp":
      return clamped(row - 10, column);
    case "PageDown":
      return clamped(row + 10, column);
    case "Home":
      return clamped(far ? 0 : row, 0);
    case "End":
      return clamped(far ? rows - 1 : row, columns - 1);
    default:
      return undefined;
  }
}
