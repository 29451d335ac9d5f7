/** Numbers as the page shows them. Where a picture stands for numbers of the API, its table shows them in full. */

/** At most `digits` significant digits, without trailing zeros: 0.1235, 1.2e-7, 12340. */
export function significant(value: number, digits = 4): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "NaN" : value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) {
    const [mantissa, exponent] = value.toExponential(digits - 1).split("e") as [string, string];
    return minus(`${trimmed(mantissa)}e${Number(exponent)}`);
  }
  return minus(trimmed(value.toPrecision(Math.max(digits, Math.ceil(Math.log10(size + 1))))));
}

/** The shortest text that parses to the same float: for tables that must equal the API to the last digit. */
export function exact(value: number | null | undefined): string {
  return value === null || value === undefined ? "NaN" : minus(String(value));
}

/** A probability: 12.3 %, 0.04 %, < 0.01 %. */
export function percent(probability: number): string {
  const value = probability * 100;
  if (value > 0 && value < 0.01) return "< 0.01 %";
  return `${value >= 99.95 && value < 100 ? "99.9" : value.toFixed(value < 1 ? 2 : 1)} %`;
}

/** A whole number with thin spaces between thousands. */
export function count(value: number): string {
  return String(Math.round(value)).replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f");
}

/** `1 cache`, `2 caches`. */
export function counted(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

/** Bytes in decimal units: 999 B, 1.23 MB. */
export function bytes(value: number): string {
  let unit = 0;
  let rest = value;
  while (rest >= 999.5 && unit < UNITS.length - 1) {
    rest /= 1000;
    unit++;
  }
  return `${unit === 0 ? rest : trimmed(rest.toPrecision(3))} ${UNITS[unit]}`;
}

function trimmed(text: string): string {
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

function minus(text: string): string {
  return text.replace("-", "−").replace("e−", "e-");
}
