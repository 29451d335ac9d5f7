/** Positions as people type them: `last`, `all`, `mean`, `prompt`, `generated`, `5`, `0,3,-1`, `1:8`, `text:Tower`, or JSON. */
import type { Schemas } from "../../server/catalogue";

type Request = Schemas["PositionsRequest"];
export type ParsedPositions = { positions: Request | undefined } | { fault: string };

const WORDS = ["last", "all", "mean", "prompt", "generated"];

export function parsePositions(text: string): ParsedPositions {
  const trimmed = text.trim();
  if (trimmed === "") return { positions: undefined };
  if (WORDS.includes(trimmed)) return { positions: trimmed as Request };
  if (trimmed.startsWith("text:")) {
    const wanted = trimmed.slice("text:".length);
    return wanted ? { positions: { text: wanted } } : { fault: "The text is missing: write it as in text:Tower." };
  }
  if (/^[{["]/.test(trimmed)) return fromJson(trimmed);
  const range = /^(-?\d*):(-?\d*)$/.exec(trimmed);
  if (range) {
    const of = (given: string | undefined) => (given ? Number(given) : null);
    return { positions: { start: of(range[1]), end: of(range[2]) } };
  }
  const parts = trimmed.split(/[\s,]+/).filter(Boolean);
  const wrong = parts.find((part) => !/^-?\d{1,9}$/.test(part));
  if (wrong !== undefined)
    return { fault: `“${wrong}” is no position: last, all, mean, numbers such as 0,3,-1, a range 1:8, text:Tower or JSON.` };
  const numbers = parts.map(Number);
  return { positions: numbers.length === 1 ? (numbers[0] as number) : numbers };
}

function fromJson(text: string): ParsedPositions {
  try {
    return { positions: JSON.parse(text) as Request };
  } catch (error) {
    return { fault: `This is not JSON: ${(error as Error).message}` };
  }
}

/** Positions of an answer as one would type them. */
export function positionsText(positions: unknown): string {
  if (typeof positions === "string" || typeof positions === "number") return String(positions);
  // One number keeps its axis in a list alone.
  if (Array.isArray(positions) && positions.length > 1) return positions.join(",");
  return JSON.stringify(positions);
}

/** The list with a position more or less, as text: what a click on a token does. Words and ranges are replaced. */
export function withPosition(text: string, position: number): string {
  const list = selectedPositions(text);
  if (list.has(position)) list.delete(position);
  else list.add(position);
  return [...list].sort((a, b) => a - b).join(",");
}

/** The positions of a typed list of numbers that are not negative. */
export function selectedPositions(text: string): Set<number> {
  return new Set(
    /^[\d\s,]+$/.test(text)
      ? text
          .split(/[\s,]+/)
          .filter(Boolean)
          .map(Number)
      : [],
  );
}

/** Which of `n` tokens a typed text selects, for marking them. */
export function marked(text: string, n: number): Set<number> {
  const parsed = parsePositions(text);
  if ("fault" in parsed || n === 0) return new Set();
  const { positions } = parsed;
  const all = (from: number, to: number) => new Set(Array.from({ length: Math.max(0, to - from) }, (_, i) => from + i));
  if (positions === "all" || positions === "prompt" || positions === "mean") return all(0, n);
  if (positions === "last") return new Set([n - 1]);
  const real = (position: number) => (position < 0 ? position + n : position);
  if (typeof positions === "number") return new Set([real(positions)]);
  if (Array.isArray(positions)) return new Set((positions as number[]).map(real));
  if (typeof positions === "object" && positions !== null && "start" in positions) {
    const { start, end } = positions as Schemas["PositionRange"];
    return all(Math.max(0, real(start ?? 0)), Math.min(n, end == null ? n : real(end)));
  }
  return new Set();
}
