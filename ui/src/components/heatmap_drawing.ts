/** Geometry and drawing of a heat map. The canvas covers the visible part of the box and is drawn again when it scrolls. */
import type { Scale } from "../colour/scale";
import type { Cell } from "./heatmap";

export interface Drawn {
  rows: number;
  columns: number;
  values: ArrayLike<number>;
  scale: Scale;
  rowLabel: (row: number) => string;
  columnLabel: (column: number) => string;
  rowAxis: string;
  columnAxis: string;
  cellText?: ((cell: Cell) => string) | undefined;
  isPending?: ((cell: Cell) => boolean) | undefined;
  selected?: Cell | null;
}

export interface Layout {
  /** Size of a cell in CSS pixels; whole numbers, so that edges are sharp. */
  cellWidth: number;
  cellHeight: number;
  /** Space for the labels of rows (left) and columns (top), which stay in place. */
  left: number;
  top: number;
  /** Size of the whole picture. */
  width: number;
  height: number;
  rows: number;
  columns: number;
}

interface Sizes {
  minCell: { width: number; height: number };
  maxCell: { width: number; height: number };
}

const FONT = "11px ui-sans-serif, system-ui, sans-serif";
const MONO = "11px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace";
/** Average width of a character of a label, in pixels. */
const CHARACTER = 6.4;

export function layoutOf(drawn: Drawn & Sizes, boxWidth: number): Layout {
  const { rows, columns, minCell, maxCell } = drawn;
  let longest = drawn.rowAxis.length;
  // Some of the labels stand for all of them.
  for (let row = 0; row < rows; row += Math.max(1, Math.floor(rows / 64)))
    longest = Math.max(longest, drawn.rowLabel(row).length);
  const left = Math.min(170, Math.max(34, longest * CHARACTER + 12));
  const cellWidth = Math.floor(Math.min(maxCell.width, Math.max(minCell.width, (boxWidth - left - 2) / Math.max(1, columns))));
  const cellHeight = Math.min(maxCell.height, Math.max(minCell.height, Math.min(cellWidth, maxCell.height)));
  let deepest = 0;
  for (let column = 0; column < columns; column += Math.max(1, Math.floor(columns / 64)))
    deepest = Math.max(deepest, Math.min(12, drawn.columnLabel(column).length));
  // Narrow columns have their labels turned.
  const top = deepest * CHARACTER + 8 <= cellWidth ? 22 : Math.min(92, deepest * CHARACTER + 14);
  return {
    cellWidth,
    cellHeight,
    left,
    top,
    width: left + cellWidth * columns,
    height: top + cellHeight * rows,
    rows,
    columns,
  };
}

/** The cell under the pointer. */
export function cellAt(event: MouseEvent, box: HTMLElement, layout: Layout): Cell | null {
  const frame = box.getBoundingClientRect();
  const x = event.clientX - frame.left - box.clientLeft;
  const y = event.clientY - frame.top - box.clientTop;
  if (x < layout.left || y < layout.top || x >= box.clientWidth || y >= box.clientHeight) return null;
  const column = Math.floor((x - layout.left + box.scrollLeft) / layout.cellWidth);
  const row = Math.floor((y - layout.top + box.scrollTop) / layout.cellHeight);
  return row >= 0 && row < layout.rows && column >= 0 && column < layout.columns ? { row, column } : null;
}

/** Scrolls as little as is needed to show a cell. */
export function scrollTo({ row, column }: Cell, box: HTMLElement, layout: Layout): void {
  const x = column * layout.cellWidth;
  const y = row * layout.cellHeight;
  const wide = box.clientWidth - layout.left - layout.cellWidth;
  const high = box.clientHeight - layout.top - layout.cellHeight;
  box.scrollLeft = Math.min(x, Math.max(box.scrollLeft, x - wide));
  box.scrollTop = Math.min(y, Math.max(box.scrollTop, y - high));
}

export function drawHeatmap(canvas: HTMLCanvasElement, box: HTMLElement, layout: Layout, drawn: Drawn, active: Cell | null) {
  const ratio = devicePixelRatio || 1;
  const width = Math.min(box.clientWidth, layout.width);
  const height = Math.min(box.clientHeight, layout.height);
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  if (!context || width === 0 || height === 0) return;
  const style = getComputedStyle(box);
  const ink = style.getPropertyValue("--ink").trim() || "#000";
  const soft = style.getPropertyValue("--ink-soft").trim() || "#666";
  const empty = style.getPropertyValue("--sunk").trim() || "#eee";
  const ground = style.getPropertyValue("--surface").trim() || "#fff";
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.fillStyle = ground;
  context.fillRect(0, 0, width, height);

  const { cellWidth, cellHeight, left, top } = layout;
  const scrollLeft = box.scrollLeft;
  const scrollTop = box.scrollTop;
  const firstColumn = Math.floor(scrollLeft / cellWidth);
  const lastColumn = Math.min(drawn.columns - 1, Math.floor((scrollLeft + width - left) / cellWidth));
  const firstRow = Math.floor(scrollTop / cellHeight);
  const lastRow = Math.min(drawn.rows - 1, Math.floor((scrollTop + height - top) / cellHeight));
  const xOf = (column: number) => left + column * cellWidth - scrollLeft;
  const yOf = (row: number) => top + row * cellHeight - scrollTop;

  context.save();
  context.beginPath();
  context.rect(left, top, width - left, height - top);
  context.clip();
  const gap = cellWidth >= 8 && cellHeight >= 8 ? 1 : 0;
  const hasText = drawn.cellText !== undefined && cellWidth >= 30;
  context.font = MONO;
  context.textBaseline = "middle";
  for (let row = firstRow; row <= lastRow; row++) {
    const y = yOf(row);
    for (let column = firstColumn; column <= lastColumn; column++) {
      const value = drawn.values[row * drawn.columns + column] ?? Number.NaN;
      const x = xOf(column);
      context.fillStyle = drawn.isPending?.({ row, column }) ? empty : drawn.scale.css(value);
      context.fillRect(x, y, cellWidth - gap, cellHeight - gap);
      if (hasText && drawn.cellText) {
        context.fillStyle = drawn.scale.ink(value);
        context.fillText(fitted(context, drawn.cellText({ row, column }), cellWidth - 7), x + 3, y + cellHeight / 2);
      }
    }
  }
  // Frames lie within the cell, since outside they would be cut off at the edge of the picture: one line that shows on the ground,
  // and within it one that shows on the cell's colour.
  const line = (cell: Cell, colour: string, inset: number, width: number) => {
    context.strokeStyle = colour;
    context.lineWidth = width;
    const [wide, high] = [cellWidth - gap, cellHeight - gap].map((size) => Math.max(1, size - 2 * inset)) as [number, number];
    context.strokeRect(xOf(cell.column) + inset, yOf(cell.row) + inset, wide, high);
  };
  const outline = (cell: Cell | null | undefined, width: number) => {
    if (!cell) return;
    line(cell, ink, width / 2, width);
    if (drawn.isPending?.(cell)) return;
    line(cell, drawn.scale.ink(drawn.values[cell.row * drawn.columns + cell.column] ?? Number.NaN), width + 0.5, 1);
  };
  outline(drawn.selected, 2);
  outline(active, 1);
  context.restore();

  context.font = FONT;
  context.textBaseline = "middle";
  context.textAlign = "right";
  const everyRow = Math.max(1, Math.ceil(13 / cellHeight));
  for (let row = firstRow; row <= lastRow; row++) {
    const y = yOf(row) + cellHeight / 2;
    if (row % everyRow !== 0 && row !== active?.row) continue;
    if (y < top + 4 || y > height - 4) continue;
    context.fillStyle = row === active?.row ? ink : soft;
    context.fillText(fitted(context, drawn.rowLabel(row), left - 10), left - 6, y);
  }
  const turned = top > 22;
  const everyColumn = Math.max(1, Math.ceil((turned ? 13 : 1) / cellWidth));
  for (let column = firstColumn; column <= lastColumn; column++) {
    const x = xOf(column) + cellWidth / 2;
    if (column % everyColumn !== 0 && column !== active?.column) continue;
    if (x < left + 2 || x > width) continue;
    context.fillStyle = column === active?.column ? ink : soft;
    if (turned) {
      context.save();
      context.translate(x, top - 6);
      context.rotate(-Math.PI / 2);
      context.textAlign = "left";
      context.fillText(fitted(context, drawn.columnLabel(column), top - 10), 0, 0);
      context.restore();
    } else {
      context.textAlign = "center";
      context.fillText(drawn.columnLabel(column), x, top - 10);
    }
  }
  context.textAlign = "left";
  context.fillStyle = soft;
  context.fillText(fitted(context, drawn.rowAxis, left - 6), 2, top - 10);
}

/** The text, cut to a width. */
function fitted(context: CanvasRenderingContext2D, text: string, width: number): string {
  if (context.measureText(text).width <= width) return text;
  const characters = [...text];
  while (characters.length > 1 && context.measureText(`${characters.join("")}…`).width > width) characters.pop();
  return `${characters.join("")}…`;
}
