/** Steering: the form in the address, and the two runs that it makes. */
import type { CreateRun } from "residuum";
import { pythonArguments, pythonOf, shellWord } from "../../format/snippets";
import type { QueryValues } from "../../router/location";

export interface SteerForm {
  model: string;
  text: string;
  direction: string;
  /** Where it is added; −1 for the middle one, or for a hook outside the blocks. */
  layer: number;
  strength: number;
  newTokens: number;
  temperature: number;
  seed: number;
}

/** Runs that are not saved expire after this many seconds. */
export const TTL_SECONDS = 3_600;

export const STRENGTH_STEP = 0.25;
export const MOST_STRENGTH = 8;

export function formOf(query: URLSearchParams): SteerForm {
  const number = (name: string, fallback: number, min: number, max: number) => {
    const text = query.get(name);
    const value = text === null || text.trim() === "" ? Number.NaN : Number(text);
    return Number.isFinite(value) ? Math.min(max, Math.max(min, value)) : fallback;
  };
  return {
    model: query.get("model") ?? "",
    text: query.get("text") ?? "",
    direction: query.get("direction") ?? "",
    layer: Math.round(number("layer", -1, -1, 10_000)),
    strength: number("strength", 2, -MOST_STRENGTH, MOST_STRENGTH),
    newTokens: Math.round(number("tokens", 24, 1, 500)),
    temperature: number("temperature", 0, 0, 5),
    seed: Math.round(number("seed", 0, 0, 2 ** 31)),
  };
}

export function queryOf(form: SteerForm): QueryValues {
  const { model, text, direction, layer, strength, newTokens, temperature, seed } = form;
  return {
    model,
    text,
    direction,
    layer: layer < 0 ? null : layer,
    // Zero is a strength, too: the address must have it.
    strength: String(strength),
    tokens: newTokens === 24 ? null : newTokens,
    temperature: temperature || null,
    seed: seed || null,
  };
}

/** The change that steers: at `hook`, where the direction comes from. */
export function interventionOf({ direction, layer, strength }: SteerForm, hook: string) {
  return {
    op: "add" as const,
    ...(hook !== "resid_post" && { hook }),
    ...(layer >= 0 && { layers: layer }),
    direction: { direction },
    strength,
  };
}

/** The run of one side. Without a hook it is the baseline. What is not saved expires. */
export function requestOf(form: SteerForm, hook: string | null): CreateRun {
  const { model, text, newTokens, temperature, seed } = form;
  return {
    model,
    input: text,
    generate: { max_new_tokens: newTokens, seed, ...(temperature > 0 && { temperature }) },
    capture: { hooks: ["resid_post"], positions: "all" },
    priority: "interactive",
    ttl_seconds: TTL_SECONDS,
    ...(hook !== null && { interventions: [interventionOf(form, hook)] }),
  };
}

/** The same on the command line. */
export function commandOf(form: SteerForm, hook: string): string {
  const { model, text, newTokens, temperature, seed } = form;
  const words = [
    `residuum run ${shellWord(text)} -m ${shellWord(model)} --generate ${newTokens} --seed ${seed}`,
    temperature > 0 && `--temperature ${temperature}`,
    "--hooks resid_post --positions all",
    `--intervene ${shellWord(JSON.stringify(interventionOf(form, hook)))}`,
  ];
  return words.filter(Boolean).join(" ");
}

/** The same in Python. */
export function pythonCallOf(form: SteerForm, hook: string): string {
  const { model, text, direction, layer, strength, newTokens, temperature, seed } = form;
  const where = pythonArguments({
    layers: layer >= 0 ? layer : undefined,
    strength,
    hook: hook === "resid_post" ? undefined : hook,
  });
  const sampling = pythonArguments({ max_new_tokens: newTokens, temperature: temperature || undefined, seed });
  return [
    `model = client.model(${pythonOf(model)})`,
    `with model.steer(${pythonOf(direction)}, ${where}) as steered:`,
    `    print(steered.generate(${pythonOf(text)}, ${sampling}).text)`,
  ].join("\n");
}

/** The words of two texts, each marked whether the other has it at its place (longest common subsequence). */
export function differences(a: string, b: string): [Piece[], Piece[]] {
  const [one, other] = [words(a), words(b)];
  const [n, m] = [one.length, other.length];
  const length = Array.from({ length: n + 1 }, () => new Uint16Array(m + 1));
  const at = (i: number, j: number) => (length[i] as Uint16Array)[j] as number;
  for (let i = n - 1; i >= 0; i--)
    for (let j = m - 1; j >= 0; j--)
      (length[i] as Uint16Array)[j] = one[i] === other[j] ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1));
  const found: [Piece[], Piece[]] = [[], []];
  let [i, j] = [0, 0];
  while (i < n || j < m) {
    if (i < n && j < m && one[i] === other[j]) {
      found[0].push({ text: one[i++] as string, differs: false });
      found[1].push({ text: other[j++] as string, differs: false });
    } else if (j >= m || (i < n && at(i + 1, j) >= at(i, j + 1))) found[0].push({ text: one[i++] as string, differs: true });
    else found[1].push({ text: other[j++] as string, differs: true });
  }
  return found;
}

export interface Piece {
  text: string;
  differs: boolean;
}

/** Words with the white space before them. */
function words(text: string): string[] {
  return text.match(/\s*\S+|\s+$/g) ?? [];
}
