/** The form of a new run: its fields as the address has them, and the request that they make. Pure functions. */
import type { CreateRun } from "residuum";
import { commaList } from "../../format/lists";
import type { Schemas } from "../../server/catalogue";
import type { QueryValues } from "../../router/location";
import { parseLayers } from "./layers";
import { parsePositions } from "./positions";

export interface ChatMessage {
  role: string;
  content: string;
}

export interface RunForm {
  model: string;
  mode: "text" | "chat";
  text: string;
  /** Whether each line of the text is an input of its own. */
  isByLine: boolean;
  messages: ChatMessage[];
  /** Short or full names of hooks; empty for the server's default. */
  hooks: string[];
  /** As typed: `all`, `0,6,12:20`; empty for all. */
  layers: string;
  /** As typed: `last`, `all`, `mean`, `0,3,-1`; empty for the server's default. */
  positions: string;
  /** Number of tokens to generate, as typed; empty for none. */
  newTokens: string;
  temperature: string;
  topP: string;
  seed: string;
  /** Continuations of each input, as typed; empty for one. */
  samples: string;
  /** A text that ends the continuation; `\\n` is a line end. */
  stop: string;
  dtype: Schemas["Dtype"];
  /** Beginning-of-sequence token: as the tokenizer decides, with, or without. */
  bos: "auto" | "with" | "without";
  /** Separated by commas. */
  tags: string;
  label: string;
  /** `key=value`, one per line. */
  metadata: string;
  priority: Schemas["Priority"];
}

export const EMPTY: RunForm = {
  model: "",
  mode: "text",
  text: "",
  isByLine: false,
  messages: [],
  hooks: [],
  layers: "",
  positions: "",
  newTokens: "",
  temperature: "",
  topP: "",
  seed: "",
  samples: "",
  stop: "",
  dtype: "float32",
  bos: "auto",
  tags: "",
  label: "",
  metadata: "",
  priority: "interactive",
};

/** Texts beyond this many characters stay out of the address. */
const LONGEST_IN_ADDRESS = 4_000;

const ROLES = ["system", "user", "assistant"];

export function formOf(query: URLSearchParams): RunForm {
  const text = (name: string) => query.get(name) ?? "";
  const oneOf = <Value extends string>(name: string, values: readonly [Value, ...Value[]]): Value =>
    values.find((value) => value === query.get(name)) ?? values[0];
  const messages = query.getAll("message").map((message): ChatMessage => {
    const at = message.indexOf(":");
    const role = at < 0 ? "" : message.slice(0, at);
    return ROLES.includes(role) ? { role, content: message.slice(at + 1) } : { role: "user", content: message };
  });
  return {
    model: text("model"),
    mode: query.get("mode") === "chat" ? "chat" : "text",
    text: text("text"),
    isByLine: query.has("lines"),
    messages,
    hooks: query.getAll("hook"),
    layers: text("layers"),
    positions: text("positions"),
    newTokens: text("generate"),
    temperature: text("temperature"),
    topP: text("top_p"),
    seed: text("seed"),
    samples: text("n"),
    stop: text("stop"),
    dtype: oneOf("dtype", ["float32", "float16", "bfloat16"]),
    bos: oneOf("bos", ["auto", "with", "without"]),
    tags: text("tags"),
    label: text("label"),
    metadata: text("metadata"),
    priority: oneOf("priority", ["interactive", "normal", "bulk"]),
  };
}

/** Whether the texts of a form are too long for the address. */
export function isLong(form: RunForm): boolean {
  const ofMessages = form.messages.reduce((sum, { role, content }) => sum + role.length + content.length, 0);
  return form.text.length + ofMessages + form.metadata.length > LONGEST_IN_ADDRESS;
}

export function queryOf(form: RunForm): QueryValues {
  const messages = form.messages.map(({ role, content }) => `${role}:${content}`);
  const isLeftOut = isLong(form);
  return {
    model: form.model,
    mode: form.mode === "chat" ? "chat" : null,
    text: isLeftOut ? null : form.text,
    lines: form.isByLine,
    message: isLeftOut ? [] : messages,
    hook: form.hooks,
    layers: form.layers,
    positions: form.positions,
    generate: form.newTokens,
    temperature: form.temperature,
    top_p: form.topP,
    seed: form.seed,
    n: form.samples,
    stop: form.stop,
    dtype: form.dtype === "float32" ? null : form.dtype,
    bos: form.bos === "auto" ? null : form.bos,
    tags: form.tags,
    label: form.label,
    metadata: isLeftOut ? null : form.metadata,
    priority: form.priority === "interactive" ? null : form.priority,
  };
}

/** The texts of the form; a text is taken as it is, with its spaces. */
export function textsOf(form: RunForm): string[] {
  const texts = form.isByLine ? form.text.split(/\r?\n/) : [form.text];
  return texts.filter((text) => text !== "");
}

/** Why a form makes no request yet; by the name of the field. */
export type Faults = Partial<Record<keyof RunForm, string>>;

export function requestOf(form: RunForm, nLayers: number | undefined): { body: CreateRun; faults: Faults } {
  const faults: Faults = {};
  const body: CreateRun = { model: form.model };
  const messages = form.messages.filter(({ content }) => content !== "");
  const texts = textsOf(form);
  if (form.mode === "chat") {
    if (messages.length === 0) faults.messages = "Write a message.";
    if (form.label) body.items = [{ messages, label: form.label }];
    else body.messages = messages;
  } else {
    if (texts.length === 0) faults.text = "Write a text.";
    if (form.label) body.items = texts.map((text) => ({ text, label: form.label }));
    else body.input = texts.length === 1 ? (texts[0] as string) : texts;
  }
  const capture: Schemas["Capture"] = {};
  if (form.hooks.length > 0) capture.hooks = form.hooks;
  const layers = parseLayers(form.layers, nLayers);
  if ("fault" in layers) faults.layers = layers.fault;
  else if (layers.layers !== undefined) capture.layers = layers.layers;
  const positions = parsePositions(form.positions);
  if ("fault" in positions) faults.positions = positions.fault;
  else if (positions.positions !== undefined) capture.positions = positions.positions;
  if (form.dtype !== "float32") capture.dtype = form.dtype;
  if (Object.keys(capture).length > 0) body.capture = capture;
  if (form.bos !== "auto") body.prepend_bos = form.bos === "with";
  generation(form, body, faults);
  const tags = commaList(form.tags);
  if (tags.length > 0) body.tags = tags;
  const metadata = parseMetadata(form.metadata);
  if (typeof metadata === "string") faults.metadata = metadata;
  else if (Object.keys(metadata).length > 0) body.metadata = metadata;
  if (form.priority !== "normal") body.priority = form.priority;
  return { body, faults };
}

function generation(form: RunForm, body: CreateRun, faults: Faults): void {
  if (form.newTokens.trim() === "") return;
  if (!/^\d{1,6}$/.test(form.newTokens.trim()) || Number(form.newTokens) === 0) {
    faults.newTokens = "A whole number of tokens, at least 1.";
    return;
  }
  body.generate = { max_new_tokens: Number(form.newTokens) };
  const { generate } = body;
  const number = (name: "temperature" | "topP" | "seed" | "samples", isRight: (value: number) => boolean, right: string) => {
    const text = form[name].trim();
    if (text === "") return undefined;
    const value = Number(text);
    if (Number.isFinite(value) && isRight(value)) return value;
    faults[name] = right;
    return undefined;
  };
  const temperature = number("temperature", (value) => value >= 0 && value <= 100, "A number from 0 to 100.");
  const topP = number("topP", (value) => value > 0 && value <= 1, "A number above 0, at most 1.");
  const seed = number("seed", (value) => value >= 0 && Number.isSafeInteger(value), "A whole number, at least 0.");
  const samples = number(
    "samples",
    (value) => Number.isInteger(value) && value >= 1 && value <= 128,
    "A whole number, 1 to 128.",
  );
  if (temperature !== undefined) generate.temperature = temperature;
  if (topP !== undefined) generate.top_p = topP;
  if (seed !== undefined) generate.seed = seed;
  if (samples !== undefined) generate.n = samples;
  if (form.stop !== "") generate.stop = form.stop.replaceAll("\\n", "\n");
}

/** Metadata of lines `key=value`: numbers, true, false and null as such, everything else as text. A string says what is wrong. */
export function parseMetadata(text: string): Record<string, string | number | boolean | null> | string {
  const found: Record<string, string | number | boolean | null> = {};
  for (const line of text.split(/\r?\n/)) {
    if (line.trim() === "") continue;
    const at = line.indexOf("=");
    if (at <= 0) return `“${line.trim()}” is not key=value.`;
    found[line.slice(0, at).trim()] = valueOf(line.slice(at + 1).trim());
  }
  return found;
}

function valueOf(text: string): string | number | boolean | null {
  if (text === "true") return true;
  if (text === "false") return false;
  if (text === "null") return null;
  return /^-?\d+(\.\d+)?([eE][+-]?\d+)?$/.test(text) && Number.isFinite(Number(text)) ? Number(text) : text;
}

const OF_GENERATION: Record<string, keyof RunForm> = {
  max_new_tokens: "newTokens",
  temperature: "temperature",
  top_p: "topP",
  seed: "seed",
  n: "samples",
  stop: "stop",
};

/** The field that a JSON pointer into the body belongs to; undefined where it is none of the form's. */
export function fieldOf(pointer: string): keyof RunForm | undefined {
  const [, first = "", second = ""] = pointer.replace(/^\/items\/\d+(?=\/)/, "").split("/");
  if (first === "capture") return (["hooks", "layers", "positions", "dtype"] as const).find((name) => name === second) ?? "hooks";
  if (first === "generate") return OF_GENERATION[second] ?? "newTokens";
  if (first === "messages" || first === "chat_template") return "messages";
  if (first === "input" || first === "text" || first === "items") return "text";
  if (first === "prepend_bos") return "bos";
  return (["model", "positions", "tags", "label", "metadata", "priority"] as const).find((name) => name === first);
}

const OF_POSITIONS = ["text_not_found", "position_out_of_range"];

/** What the server says about fields; of several inputs, with the number of the one concerned. */
export function faultsOf(errors: readonly { pointer: string; detail: string }[], code?: string): Faults {
  const faults: Faults = {};
  for (const { pointer, detail } of errors) {
    // Their pointer is the input that lacks them; what is to be changed here is what was asked for.
    const field = OF_POSITIONS.includes(code ?? "") ? "positions" : fieldOf(pointer);
    if (!field) continue;
    const place = /^\/(input|items|messages)\/(\d+)/.exec(pointer);
    const text = place ? `${place[1] === "messages" ? "Message" : "Text"} ${Number(place[2]) + 1}: ${detail}` : detail;
    faults[field] = faults[field] && faults[field] !== text ? `${faults[field]} ${text}` : text;
  }
  return faults;
}
