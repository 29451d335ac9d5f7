/** Draws a scatter plot on a canvas. */
import { significant } from "../../format/numbers";
import { type Domain, type Frame, ticks, toPixels } from "./scatter_layout";

/** Shapes of categories, so that colours are not needed to tell them apart. */
export const SHAPES = ["circle", "square", "triangle", "diamond", "cross", "plus", "down"] as const;
export type Shape = (typeof SHAPES)[number];

export interface Points {
  x: ArrayLike<number>;
  y: ArrayLike<number>;
  colours: readonly string[];
  shapes: readonly Shape[];
  /** Whether points have a dark edge: those of a scale may be as light as the ground. */
  isEdged: boolean;
}

export interface Marks {
  selected: ReadonlySet<number>;
  active: number | null;
  /** The rectangle that is being drawn, in pixels. */
  brush: Domain | null;
}

export interface Inks {
  ink: string;
  soft: string;
  line: string;
  accent: string;
  surface: string;
}

/** The outline of a shape of radius `r` around a place. */
export function outline(shape: Shape, x: number, y: number, r: number): readonly (readonly [number, number])[] | null {
  const at = (...points: [number, number][]) => points.map(([dx, dy]) => [x + dx * r, y + dy * r] as const);
  const arm = 0.34;
  switch (shape) {
    case "circle":
      return null;
    case "square":
      return at([-0.88, -0.88], [0.88, -0.88], [0.88, 0.88], [-0.88, 0.88]);
    case "triangle":
      return at([0, -1.15], [1.1, 0.85], [-1.1, 0.85]);
    case "down":
      return at([0, 1.15], [1.1, -0.85], [-1.1, -0.85]);
    case "diamond":
      return at([0, -1.25], [1.25, 0], [0, 1.25], [-1.25, 0]);
    case "plus":
      return cross(arm).map(([dx, dy]) => [x + dx * r * 1.2, y + dy * r * 1.2] as const);
    case "cross": {
      const turn = Math.SQRT1_2 * 1.25;
      return cross(arm).map(([dx, dy]) => [x + (dx - dy) * turn * r, y + (dx + dy) * turn * r] as const);
    }
  }
}

function cross(a: number): [number, number][] {
  return [
    [-a, -1],
    [a, -1],
    [a, -a],
    [1, -a],
    [1, a],
    [a, a],
    [a, 1],
    [-a, 1],
    [-a, a],
    [-1, a],
    [-1, -a],
    [-a, -a],
  ];
}

function trace(context: CanvasRenderingContext2D, shape: Shape, x: number, y: number, r: number): void {
  context.beginPath();
  const points = outline(shape, x, y, r);
  if (!points) context.arc(x, y, r, 0, 2 * Math.PI);
  else for (const [px, py] of points) context.lineTo(px, py);
  context.closePath();
}

/** Radius of a point in pixels: smaller if there are many. */
export function radiusFor(count: number): number {
  return count <= 200 ? 5 : count <= 800 ? 4 : 3;
}

export interface Drawing {
  frame: Frame;
  points: Points;
  marks: Marks;
  xLabel: string;
  yLabel: string;
  inks: Inks;
}

export function drawScatter(canvas: HTMLCanvasElement, drawing: Drawing): void {
  const { frame, points, marks, inks } = drawing;
  const ratio = devicePixelRatio || 1;
  const [width, height] = [Math.round(frame.width * ratio), Math.round(frame.height * ratio)];
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  if (!context) return;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, frame.width, frame.height);
  drawAxes(context, drawing);
  context.save();
  context.beginPath();
  context.rect(frame.left, frame.top, frame.width - frame.left - frame.right, frame.height - frame.top - frame.bottom);
  context.clip();
  const r = radiusFor(points.x.length);
  for (let i = 0; i < points.x.length; i++) drawPoint(context, drawing, i, r);
  for (const i of marks.selected) ring(context, drawing, i, r + 3, inks.ink, 1.5);
  if (marks.active !== null) ring(context, drawing, marks.active, r + 4.5, inks.accent, 2.5);
  if (marks.brush) {
    const { x0, x1, y0, y1 } = marks.brush;
    context.strokeStyle = inks.accent;
    context.lineWidth = 1;
    context.setLineDash([4, 3]);
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  }
  context.restore();
}

function drawPoint(context: CanvasRenderingContext2D, { frame, points, inks }: Drawing, i: number, r: number): void {
  const [x, y] = toPixels(frame, points.x[i] as number, points.y[i] as number);
  trace(context, points.shapes[i] ?? "circle", x, y, r);
  context.fillStyle = points.colours[i] ?? inks.soft;
  context.fill();
  context.strokeStyle = points.isEdged ? inks.soft : inks.surface;
  context.lineWidth = points.isEdged ? 0.6 : 0.8;
  context.stroke();
}

function ring(
  context: CanvasRenderingContext2D,
  { frame, points }: Drawing,
  i: number,
  r: number,
  colour: string,
  width: number,
) {
  const [x, y] = toPixels(frame, points.x[i] as number, points.y[i] as number);
  context.beginPath();
  context.arc(x, y, r, 0, 2 * Math.PI);
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.stroke();
}

function drawAxes(context: CanvasRenderingContext2D, { frame, xLabel, yLabel, inks }: Drawing): void {
  const { domain, left, top } = frame;
  const right = frame.width - frame.right;
  const bottom = frame.height - frame.bottom;
  context.font = "11px system-ui, sans-serif";
  context.lineWidth = 1;
  context.fillStyle = inks.soft;
  context.textAlign = "center";
  context.textBaseline = "top";
  for (const tick of ticks(domain.x0, domain.x1, (right - left) / 85)) {
    const [x] = toPixels(frame, tick, domain.y0);
    gridLine(context, inks, tick === 0, [x, top], [x, bottom]);
    context.fillText(significant(tick), x, bottom + 5);
  }
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const tick of ticks(domain.y0, domain.y1, (bottom - top) / 60)) {
    const [, y] = toPixels(frame, domain.x0, tick);
    gridLine(context, inks, tick === 0, [left, y], [right, y]);
    context.fillText(significant(tick), left - 6, y);
  }
  context.font = "12px system-ui, sans-serif";
  context.textAlign = "center";
  context.textBaseline = "bottom";
  context.fillText(xLabel, (left + right) / 2, frame.height - 2, right - left);
  context.save();
  context.translate(12, (top + bottom) / 2);
  context.rotate(-Math.PI / 2);
  context.textBaseline = "middle";
  context.fillText(yLabel, 0, 0, bottom - top);
  context.restore();
}

function gridLine(
  context: CanvasRenderingContext2D,
  inks: Inks,
  isZero: boolean,
  from: readonly [number, number],
  to: readonly [number, number],
): void {
  context.strokeStyle = inks.line;
  context.globalAlpha = isZero ? 1 : 0.6;
  context.lineWidth = isZero ? 1.5 : 1;
  context.beginPath();
  context.moveTo(...from);
  context.lineTo(...to);
  context.stroke();
  context.globalAlpha = 1;
}
