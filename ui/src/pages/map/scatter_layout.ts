/** Where points are drawn, and which one a pointer or an arrow key means. */

export interface Domain {
  x0: number;
  x1: number;
  y0: number;
  y1: number;
}

export interface Frame {
  /** Size of the whole picture, and of the margins with the axes, in pixels. */
  width: number;
  height: number;
  left: number;
  bottom: number;
  top: number;
  right: number;
  domain: Domain;
}

export const MARGIN = { left: 58, right: 14, top: 12, bottom: 40 };

/**
 * A frame in which both axes have the same unit, so that distances look as they are: the domain is widened where the picture has
 * room.
 */
export function frameOf(wanted: Domain, width: number, height: number): Frame {
  const inner = {
    width: Math.max(1, width - MARGIN.left - MARGIN.right),
    height: Math.max(1, height - MARGIN.top - MARGIN.bottom),
  };
  const size = { x: Math.max(wanted.x1 - wanted.x0, 0), y: Math.max(wanted.y1 - wanted.y0, 0) };
  const unit = Math.max(size.x / inner.width, size.y / inner.height) || 1 / inner.width;
  const half = { x: (unit * inner.width) / 2, y: (unit * inner.height) / 2 };
  const middle = { x: (wanted.x0 + wanted.x1) / 2, y: (wanted.y0 + wanted.y1) / 2 };
  const domain = { x0: middle.x - half.x, x1: middle.x + half.x, y0: middle.y - half.y, y1: middle.y + half.y };
  return { width, height, ...MARGIN, domain };
}

/** The smallest domain with all points, and a little room around them. */
export function domainOf(x: ArrayLike<number>, y: ArrayLike<number>): Domain {
  const range = (values: ArrayLike<number>): [number, number] => {
    let [min, max] = [Infinity, -Infinity];
    for (let i = 0; i < values.length; i++) {
      const value = values[i] as number;
      if (value < min) min = value;
      if (value > max) max = value;
    }
    return min > max ? [0, 0] : [min, max];
  };
  const [x0, x1] = range(x);
  const [y0, y1] = range(y);
  const room = 0.05 * Math.max(x1 - x0, y1 - y0);
  return { x0: x0 - room, x1: x1 + room, y0: y0 - room, y1: y1 + room };
}

export function toPixels({ width, height, left, right, top, bottom, domain }: Frame, x: number, y: number): [number, number] {
  const across = (x - domain.x0) / (domain.x1 - domain.x0);
  const up = (y - domain.y0) / (domain.y1 - domain.y0);
  return [left + across * (width - left - right), height - bottom - up * (height - top - bottom)];
}

export function fromPixels({ width, height, left, right, top, bottom, domain }: Frame, px: number, py: number): [number, number] {
  const across = (px - left) / (width - left - right);
  const up = (height - bottom - py) / (height - top - bottom);
  return [domain.x0 + across * (domain.x1 - domain.x0), domain.y0 + up * (domain.y1 - domain.y0)];
}

/** Round numbers from min to max, about `count` of them. */
export function ticks(min: number, max: number, count: number): number[] {
  const rough = (max - min) / Math.max(1, count);
  if (!(rough > 0) || !Number.isFinite(rough)) return [];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999) ?? 10) * power;
  const out: number[] = [];
  for (let i = Math.ceil(min / step); i * step <= max; i++) out.push(Number((i * step).toPrecision(12)));
  return out;
}

/** The point nearest to a place in pixels, at most `reach` away; undefined if there is none. */
export function nearest(
  frame: Frame,
  x: ArrayLike<number>,
  y: ArrayLike<number>,
  px: number,
  py: number,
  reach = 12,
): number | undefined {
  let found: number | undefined;
  let best = reach * reach;
  for (let i = 0; i < x.length; i++) {
    const [ix, iy] = toPixels(frame, x[i] as number, y[i] as number);
    const square = (ix - px) ** 2 + (iy - py) ** 2;
    if (square <= best) [found, best] = [i, square];
  }
  return found;
}

const ARROWS: Record<string, readonly [number, number]> = {
  ArrowRight: [1, 0],
  ArrowLeft: [-1, 0],
  ArrowUp: [0, 1],
  ArrowDown: [0, -1],
};

/** The point that an arrow key leads to: the nearest one within 45° of its direction. Undefined for other keys, and at the edge. */
export function neighbourOf(key: string, from: number, x: ArrayLike<number>, y: ArrayLike<number>): number | undefined {
  const arrow = ARROWS[key];
  if (!arrow) return undefined;
  let found: number | undefined;
  let best = Infinity;
  for (let i = 0; i < x.length; i++) {
    const dx = (x[i] as number) - (x[from] as number);
    const dy = (y[i] as number) - (y[from] as number);
    const along = dx * arrow[0] + dy * arrow[1];
    const aside = Math.abs(dx * arrow[1]) + Math.abs(dy * arrow[0]);
    if (i === from || along <= 0 || aside > along) continue;
    const square = dx * dx + dy * dy;
    if (square < best) [found, best] = [i, square];
  }
  return found;
}

/** The points in a rectangle. */
export function within({ x0, x1, y0, y1 }: Domain, x: ArrayLike<number>, y: ArrayLike<number>): number[] {
  const out: number[] = [];
  for (let i = 0; i < x.length; i++) {
    const [a, b] = [x[i] as number, y[i] as number];
    if (a >= x0 && a <= x1 && b >= y0 && b <= y1) out.push(i);
  }
  return out;
}

/** A domain as text of the address, and back; undefined if it is none. */
export function domainText({ x0, x1, y0, y1 }: Domain): string {
  return [x0, x1, y0, y1].map((value) => Number(value.toPrecision(6))).join(",");
}

export function domainFrom(text: string): Domain | undefined {
  const [x0, x1, y0, y1, ...rest] = text.split(",").map((part) => (part.trim() === "" ? Number.NaN : Number(part)));
  if (x0 === undefined || x1 === undefined || y0 === undefined || y1 === undefined || rest.length > 0) return undefined;
  if (![x0, x1, y0, y1].every(Number.isFinite) || x0 >= x1 || y0 >= y1) return undefined;
  return { x0, x1, y0, y1 };
}
