/** The run of a form as Python and as a command. */
import type { CreateRun } from "residuum";
import { pythonArguments, pythonClient, pythonOf, shellWord } from "../../format/snippets";

export function pythonRun(body: CreateRun, origin: string): string {
  const { model, input, messages, items, capture, generate, tags, metadata, priority, prepend_bos } = body;
  const what = items ?? (messages ? { messages } : input);
  const options = pythonArguments({
    hooks: capture?.hooks,
    layers: capture?.layers,
    positions: capture?.positions,
    dtype: capture?.dtype ?? undefined,
    generate,
    prepend_bos,
    tags,
    metadata,
    priority,
  });
  return `${pythonClient(origin)}\nrun = client.model(${pythonOf(model)}).run(${pythonOf(what)}${options && `, ${options}`})`;
}

/** Undefined where the command line has no such run. */
export function commandRun(body: CreateRun): string | undefined {
  const { model, input, items, messages, capture, generate, tags, metadata, priority, prepend_bos } = body;
  const chat = messages ?? items?.[0]?.messages;
  const turns = chat && userAndSystem(chat);
  if (turns === null) return undefined;
  const texts = turns
    ? []
    : items
      ? items.map((item) => item.text ?? "")
      : typeof input === "string"
        ? [input]
        : (input as string[]);
  const words = [`residuum run -m ${shellWord(model)}`];
  const { hooks, layers, positions } = capture ?? {};
  if (hooks) words.push(`--hooks ${shellWord(hooks.join(","))}`);
  if (layers !== undefined && layers !== null) words.push(`--layers ${[layers].flat().join(",")}`);
  if (positions !== undefined && positions !== null) {
    const isRange = typeof positions === "object" && !Array.isArray(positions) && "start" in positions;
    const isOther = typeof positions === "object" && !Array.isArray(positions);
    const text = isRange
      ? `${positions.start ?? ""}:${positions.end ?? ""}`
      : isOther
        ? JSON.stringify(positions)
        : [positions].flat().join(",");
    words.push(`--positions=${shellWord(text)}`);
  }
  if (capture?.dtype) words.push(`--dtype ${capture.dtype}`);
  if (typeof prepend_bos === "boolean") words.push(`--bos ${prepend_bos}`);
  if (generate) {
    words.push(`--generate ${generate.max_new_tokens}`);
    if (generate.temperature != null) words.push(`--temperature ${generate.temperature}`);
    if (generate.top_p != null) words.push(`--top-p ${generate.top_p}`);
    if (generate.n != null) words.push(`--samples ${generate.n}`);
    if (typeof generate.stop === "string") words.push(`--stop=${shellWord(generate.stop)}`);
    if (generate.seed != null) words.push(`--seed ${generate.seed}`);
  }
  const label = items?.[0]?.label;
  if (label) words.push(`--label=${shellWord(label)}`);
  for (const tag of tags ?? []) words.push(`--tag=${shellWord(tag)}`);
  for (const [key, value] of Object.entries(metadata ?? {}))
    words.push(`--metadata=${shellWord(`${key}=${metadataText(value)}`)}`);
  if (priority) words.push(`--priority ${priority}`);
  if (turns?.system !== undefined) words.push(`--system=${shellWord(turns.system)}`);
  if (turns) words.push(`--user=${shellWord(turns.user)}`);
  // A text that begins with a hyphen is no option.
  if (texts.some((text) => text.startsWith("-"))) words.push("--");
  return [...words, ...texts.map(shellWord)].join(" ");
}

/** A chat that the command line can say: one message of the user, after a system message or none. Null for others. */
function userAndSystem(chat: readonly { role: string; content: string }[]): { user: string; system?: string } | null {
  const [first, second] = chat;
  if (chat.length === 1 && first?.role === "user") return { user: first.content };
  if (chat.length !== 2 || first?.role !== "system" || second?.role !== "user") return null;
  return { user: second.content, system: first.content };
}

/** A value as the command line reads it: JSON, or else a text. A text that is JSON is quoted. */
function metadataText(value: unknown): string {
  if (typeof value !== "string") return JSON.stringify(value);
  try {
    JSON.parse(value);
    return JSON.stringify(value);
  } catch {
    return value;
  }
}
