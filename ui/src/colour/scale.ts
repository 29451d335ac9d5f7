/**
 * Colour scales. Both vary in lightness and between blue and orange only, so that they can be told apart with any colour vision.
 * Interpolated in OKLab (https://bottosson.github.io/posts/oklab/).
 */

export type Theme = "light" | "dark";
export type Rgb = readonly [red: number, green: number, blue: number];

/** Maps numbers to colours. */
export interface Scale {
  readonly kind: "sequential" | "diverging";
  /** Values at the ends; those beyond them have the colours of the ends. A diverging scale has min = −max. */
  readonly min: number;
  readonly max: number;
  readonly theme: Theme;
  /** Colour of a value, 0 to 255 each; NaN has a colour of its own, which is on no scale. */
  rgb(value: number): Rgb;
  css(value: number): string;
  /** Black or white, whichever is read better on the colour of the value. */
  ink(value: number): string;
}

const STOPS: Record<Scale["kind"], Record<Theme, readonly string[]>> = {
  sequential: {
    light: ["#f5f7fa", "#c3d9ec", "#79b0d9", "#2f7ab8", "#0a3d73"],
    dark: ["#1b2028", "#1f4163", "#2b74ad", "#78b7df", "#e6f4ff"],
  },
  diverging: {
    light: ["#0b4884", "#5b9bd0", "#f5f5f3", "#e59a53", "#8f4104"],
    dark: ["#9ad0ff", "#2d74b0", "#20242b", "#b46a24", "#ffc890"],
  },
};
const MISSING: Record<Theme, Rgb> = { light: [214, 190, 214], dark: [92, 62, 92] };
const STEPS = 256;

/** From `min` to `max`: for what has no natural middle. */
export function sequential(min: number, max: number, theme: Theme): Scale {
  return makeScale("sequential", min, max > min ? max : min + 1, theme);
}

/** From −extent to extent, with zero in the middle. */
export function diverging(extent: number, theme: Theme): Scale {
  const size = Number.isFinite(extent) && extent > 0 ? extent : 1;
  return makeScale("diverging", -size, size, theme);
}

/** A scale for these values: diverging if some are negative, else sequential from zero (or from the smallest value). */
export function scaleFor(values: Iterable<number>, theme: Theme, { fromZero = true } = {}): Scale {
  const { min, max } = extentOf(values);
  if (min < 0) return diverging(Math.max(-min, max), theme);
  return sequential(fromZero ? 0 : min, max, theme);
}

/** Smallest and largest of the finite values; 0 and 1 if there is none. */
export function extentOf(values: Iterable<number>): { min: number; max: number } {
  let min = Infinity;
  let max = -Infinity;
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    if (value < min) min = value;
    if (value > max) max = value;
  }
  return min > max ? { min: 0, max: 1 } : { min, max };
}

function makeScale(kind: Scale["kind"], min: number, max: number, theme: Theme): Scale {
  const table = tableOf(kind, theme);
  const colour = (value: number): Rgb => {
    if (Number.isNaN(value)) return MISSING[theme];
    const part = Math.min(1, Math.max(0, (value - min) / (max - min)));
    return table[Math.round(part * (STEPS - 1))] as Rgb;
  };
  return {
    kind,
    min,
    max,
    theme,
    rgb: colour,
    css: (value) => cssOf(colour(value)),
    ink: (value) => inkOn(colour(value)),
  };
}

export function cssOf([red, green, blue]: Rgb): string {
  return `rgb(${red} ${green} ${blue})`;
}

/** Black or white, whichever has the larger contrast (WCAG 2.2, relative luminance). */
export function inkOn(colour: Rgb): string {
  const luminance = luminanceOf(colour);
  return 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 ? "#fff" : "#000";
}

/** WCAG's relative luminance, 0 to 1. */
export function luminanceOf([red, green, blue]: Rgb): number {
  return 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue);
}

/** Colours of categories: Okabe and Ito's, which all kinds of colour vision tell apart, and the dash of their lines. */
export function categorical(index: number, theme: Theme): string {
  const colours =
    theme === "light"
      ? ["#0072b2", "#d55e00", "#007a5a", "#b0568f", "#8a6d00", "#3a3a3a", "#2a8fc4"]
      : ["#56b4e9", "#e69f00", "#2fc79b", "#e08cc0", "#f0e442", "#d0d0d0", "#ff8f5a"];
  return colours[index % colours.length] as string;
}

const tables = new Map<string, readonly Rgb[]>();

function tableOf(kind: Scale["kind"], theme: Theme): readonly Rgb[] {
  const name = `${kind} ${theme}`;
  let table = tables.get(name);
  if (!table) {
    const stops = STOPS[kind][theme].map((stop) => toLab(parse(stop)));
    table = Array.from({ length: STEPS }, (_, step) => {
      const at = (step / (STEPS - 1)) * (stops.length - 1);
      const low = Math.min(Math.floor(at), stops.length - 2);
      const from = stops[low] as Lab;
      const to = stops[low + 1] as Lab;
      return fromLab(from.map((value, i) => value + ((to[i] as number) - value) * (at - low)) as Lab);
    });
    tables.set(name, table);
  }
  return table;
}

type Lab = [lightness: number, a: number, b: number];

function parse(hex: string): Rgb {
  const value = Number.parseInt(hex.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}

function linear(channel: number): number {
  const part = channel / 255;
  return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
}

function gamma(part: number): number {
  const clipped = Math.min(1, Math.max(0, part));
  return Math.round(255 * (clipped <= 0.0031308 ? 12.92 * clipped : 1.055 * clipped ** (1 / 2.4) - 0.055));
}

function toLab(colour: Rgb): Lab {
  const [r, g, b] = colour.map(linear) as [number, number, number];
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return [
    0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
    1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s,
  ];
}

function fromLab([lightness, a, b]: Lab): Rgb {
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    gamma(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s),
    gamma(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s),
    gamma(-0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s),
  ];
}
