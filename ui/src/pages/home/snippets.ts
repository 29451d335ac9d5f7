/** The run of a form as Python and as a command. */
import type { CreateRun } from "residuum";
import { pythonArguments, pythonClient, pythonOf, shellWord } from "../../format/snippets";

export function pythonRun(body: CreateRun, origin: string): string {
  const { model, input, messages, items, capture, generate, tags, metadata, priority } = body;
  const what = items ?? (messages ? { messages } : input);
  const options = pythonArguments({
    hooks: capture?.hooks,
    layers: capture?.layers,
    positions: capture?.positions,
    generate,
    tags,
    metadata,
    priority,
  });
  return `${pythonClient(origin)}\nrun = client.model(${pythonOf(model)}).run(${pythonOf(what)}${options && `, ${options}`})`;
}

/** Undefined where the command line has no such run. */
export function commandRun(body: CreateRun): string | undefined {
  const { model, input, items, messages, capture, generate, tags, metadata, priority } = body;
  if (messages || items?.some((item) => item.messages)) return undefined;
  const texts = items ? items.map((item) => item.text ?? "") : typeof input === "string" ? [input] : (input as string[]);
  const words = [`residuum run -m ${shellWord(model)}`];
  const { hooks, layers, positions } = capture ?? {};
  if (hooks) words.push(`--hooks ${shellWord(hooks.join(","))}`);
  if (layers !== undefined && layers !== null) words.push(`--layers ${[layers].flat().join(",")}`);
  if (positions !== undefined && positions !== null) {
    const isRange = typeof positions === "object" && !Array.isArray(positions) && "start" in positions;
    const text = isRange ? `${positions.start ?? ""}:${positions.end ?? ""}` : [positions].flat().join(",");
    words.push(`--positions=${shellWord(text)}`);
  }
  if (generate) {
    words.push(`--generate ${generate.max_new_tokens}`);
    if (generate.temperature != null) words.push(`--temperature ${generate.temperature}`);
    if (generate.seed != null) words.push(`--seed ${generate.seed}`);
  }
  const label = items?.[0]?.label;
  if (label) words.push(`--label ${shellWord(label)}`);
  for (const tag of tags ?? []) words.push(`--tag ${shellWord(tag)}`);
  for (const [key, value] of Object.entries(metadata ?? {})) words.push(`--metadata ${shellWord(`${key}=${String(value)}`)}`);
  if (priority) words.push(`--priority ${priority}`);
  // A text that begins with a hyphen is no option.
  if (texts.some((text) => text.startsWith("-"))) words.push("--");
  return [...words, ...texts.map(shellWord)].join(" ");
}
