/** Points in a plane: hover or arrow keys read them, a click opens one, a drag selects those in a rectangle. */
import { useSignal } from "@preact/signals";
import { useEffect, useId, useLayoutEffect, useRef } from "preact/hooks";
import { theme } from "../../colour/theme";
import { Tip } from "../../components/heatmap";
import { drawScatter, type Points } from "./scatter_drawing";
import { type Domain, type Frame, frameOf, fromPixels, nearest, neighbourOf, toPixels, within } from "./scatter_layout";

export interface ScatterProps {
  label: string;
  points: Points;
  xLabel: string;
  yLabel: string;
  /** What is to be seen at least. */
  domain: Domain;
  /** A point in words. */
  describe: (index: number) => string;
  selected: ReadonlySet<number>;
  onOpen: (index: number) => void;
  /** Space on a point, or a click with Ctrl or Shift. */
  onToggle: (index: number) => void;
  /** The points in a rectangle that was drawn, and the rectangle; `add`: with Shift, to what is selected already. */
  onBrush: (indices: number[], domain: Domain, add: boolean) => void;
  height?: number;
}

/** A pointer that moved less than this many pixels has clicked. */
const CLICK = 4;

export function Scatter(props: ScatterProps) {
  const { points, domain, describe, selected, height = 520 } = props;
  const box = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const width = useSignal(0);
  const active = useSignal<number | null>(null);
  const brush = useSignal<Domain | null>(null);
  const tip = useSignal<{ x: number; y: number; text: string } | null>(null);
  const spoken = useSignal("");
  const start = useRef<{ x: number; y: number } | null>(null);
  const help = useId();
  const frame = frameOf(domain, width.value || 600, height);
  const count = points.x.length;
  if (active.value !== null && active.value >= count) active.value = null;

  useLayoutEffect(() => {
    const element = box.current;
    if (!element) return undefined;
    const observer = new ResizeObserver(() => (width.value = element.clientWidth));
    observer.observe(element);
    width.value = element.clientWidth;
    return () => observer.disconnect();
  }, []);
  // Read here, so that a change of the theme draws again.
  const shade = theme.value;
  useEffect(() => {
    const request = requestAnimationFrame(() => {
      if (!canvas.current || !box.current) return;
      const style = getComputedStyle(box.current);
      const colour = (name: string) => style.getPropertyValue(name).trim();
      drawScatter(canvas.current, {
        frame,
        points,
        marks: { selected, active: active.value, brush: brush.value },
        xLabel: props.xLabel,
        yLabel: props.yLabel,
        inks: {
          ink: colour("--ink"),
          soft: colour("--ink-soft"),
          line: colour("--line"),
          accent: colour("--accent"),
          surface: colour("--surface"),
        },
      });
    });
    return () => cancelAnimationFrame(request);
  }, [frame, points, selected, active.value, brush.value, shade]);

  const placeOf = (event: MouseEvent) => {
    const rect = (box.current as HTMLDivElement).getBoundingClientRect();
    return { x: event.clientX - rect.left, y: event.clientY - rect.top };
  };
  const under = ({ x, y }: { x: number; y: number }) => nearest(frame, points.x, points.y, x, y) ?? null;
  const onPointerMove = (event: PointerEvent) => {
    const at = placeOf(event);
    const from = start.current;
    if (from && Math.hypot(at.x - from.x, at.y - from.y) > CLICK) {
      brush.value = rectangle(from, at);
      tip.value = null;
      return;
    }
    active.value = under(at);
    tip.value = active.value === null ? null : { x: event.clientX, y: event.clientY, text: describe(active.value) };
  };
  const onPointerUp = (event: PointerEvent) => {
    const from = start.current;
    const drawn = brush.peek();
    start.current = null;
    brush.value = null;
    if (!from) return;
    if (drawn) {
      const [x0, y0] = fromPixels(frame, drawn.x0, drawn.y1);
      const [x1, y1] = fromPixels(frame, drawn.x1, drawn.y0);
      const found = { x0, x1, y0, y1 };
      props.onBrush(within(found, points.x, points.y), found, event.shiftKey);
      return;
    }
    const index = under(placeOf(event));
    if (index === null) return;
    if (event.ctrlKey || event.metaKey || event.shiftKey) props.onToggle(index);
    else props.onOpen(index);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const from = active.peek();
    if (event.key.startsWith("Arrow") && count > 0) {
      const to = from === null ? 0 : (neighbourOf(event.key, from, points.x, points.y) ?? from);
      active.value = to;
      spoken.value = describe(to);
      const rect = (box.current as HTMLDivElement).getBoundingClientRect();
      tip.value = { ...pageOf(rect, frame, points, to), text: describe(to) };
    } else if (event.key === "Enter" && from !== null) props.onOpen(from);
    else if (event.key === " " && from !== null) props.onToggle(from);
    else if (event.key === "Escape") tip.value = null;
    else return;
    event.preventDefault();
  };
  const leave = () => {
    tip.value = null;
    active.value = null;
  };
  return (
    <div class="scatter">
      <div
        ref={box}
        class="scatter-box"
        role="application"
        aria-roledescription="scatter plot"
        aria-label={props.label}
        aria-describedby={help}
        tabIndex={0}
        style={{ height: `${height}px` }}
        onPointerDown={(event) => {
          if (event.button !== 0 || event.pointerType === "touch") return;
          start.current = placeOf(event);
          event.currentTarget.setPointerCapture(event.pointerId);
        }}
        onPointerMove={onPointerMove}
        onPointerUp={onPointerUp}
        onPointerCancel={() => {
          start.current = null;
          brush.value = null;
        }}
        onPointerLeave={leave}
        onClick={(event) => {
          // A finger scrolls rather than draws rectangles: a tap opens.
          if ((event as unknown as PointerEvent).pointerType !== "touch") return;
          const index = under(placeOf(event));
          if (index !== null) props.onOpen(index);
        }}
        onBlur={leave}
        onKeyDown={onKeyDown}
      >
        <canvas ref={canvas} aria-hidden="true" style={{ cursor: active.value === null ? "crosshair" : "pointer" }} />
      </div>
      <span id={help} class="unseen">
        Arrow keys move between points, Enter opens the cache, Space selects it.
      </span>
      <output class="unseen" aria-live="polite">
        {spoken.value}
      </output>
      {tip.value && <Tip {...tip.value} />}
    </div>
  );
}

function rectangle(a: { x: number; y: number }, b: { x: number; y: number }): Domain {
  return { x0: Math.min(a.x, b.x), x1: Math.max(a.x, b.x), y0: Math.min(a.y, b.y), y1: Math.max(a.y, b.y) };
}

/** Where a point is in the window. */
function pageOf(rect: DOMRect, frame: Frame, points: Points, index: number) {
  const [x, y] = toPixels(frame, points.x[index] as number, points.y[index] as number);
  return { x: rect.left + x, y: rect.top + y };
}
