/** Runs in the browser: uses the client against a server of another origin, and returns what the test compares. */
import { createClient, type Client, ResiduumError } from "../../src/index.js";

/** What the page found. Bytes are hexadecimal digits. */
export interface Found {
  floats: string;
  halves: string;
  shape: number[];
  axes: readonly string[] | undefined;
  layers: readonly number[] | undefined;
  json: unknown;
  tokenIds: string[];
  ids: string[];
  follow: string;
  completion: string | undefined;
  aborted: string;
  chat: string;
  code: string;
  pointer: string | undefined;
  requestIdIsVisible: boolean;
  imported: string;
}

const HOOK = "blocks.12.hook_resid_post";

function hex(array: ArrayBufferView): string {
  const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function generated(client: Client, model: string): Promise<Pick<Found, "follow" | "completion">> {
  const run = await client.runs.create({ model, input: "Once", generate: { max_new_tokens: 12 }, capture: { hooks: [] } });
  let follow = "";
  for await (const event of client.runs.follow(run.id)) {
    if (event.type === "token") follow += event.data.text;
  }
  const cache = (await client.runs.caches(run.id).next()).value;
  return { follow, completion: cache?.completion?.text };
}

async function aborted(client: Client, model: string): Promise<string> {
  const run = await client.runs.create({ model, input: "Twice", generate: { max_new_tokens: 60 }, capture: { hooks: [] } });
  const controller = new AbortController();
  try {
    for await (const { type } of client.runs.follow(run.id, { signal: controller.signal })) {
      if (type === "token") controller.abort();
    }
    return "nothing";
  } catch (error) {
    return (error as Error).name;
  }
}

async function chatted(client: Client, model: string): Promise<string> {
  let chat = "";
  const messages = [{ role: "user", content: "Name three colours." }];
  for await (const { choices } of client.openai.streamChat({ model, messages, max_completion_tokens: 8, temperature: 0 })) {
    chat += choices[0]?.delta.content ?? "";
  }
  return chat;
}

/** Uses every kind of answer. */
export async function use(baseUrl: string, apiKey: string, model: string, input: string): Promise<Found> {
  const client = createClient({ baseUrl, apiKey });
  const run = await client.run({ model, input, capture: { layers: [0, 12], positions: "all" }, tags: ["browser"] });
  const cache = run.caches[0]!;
  const tensor = await client.tensor(cache, HOOK);
  const halves = await client.tensor(cache, HOOK, { dtype: "bfloat16" });
  const layers = await client.caches.layers(cache, { position: "last" });
  const json = await client.get("/v1/caches/{id}/tensors/{hook}", { params: { path: { id: cache, hook: HOOK } } });
  const { tensors } = await client.caches.load(cache);
  const ids = [];
  for await (const { id } of client.caches.all({ tag: ["browser"], limit: 1 })) ids.push(id);
  const error = await client.runs.create({ model, input, capture: { layers: 30 } }).catch((e: unknown) => e);
  if (!(error instanceof ResiduumError)) throw new Error("layer 30 was accepted");
  const file = await client.get("/v1/caches/{id}/safetensors", { params: { path: { id: cache } }, parseAs: "blob" });
  const imported = await client.caches.import(file);
  return {
    floats: hex(tensor.data),
    halves: hex(halves.data),
    shape: [...tensor.shape],
    axes: tensor.info.axes,
    layers: layers.info.layers,
    json: json.values,
    tokenIds: Array.from(tensors.get("token_ids")!.data as BigInt64Array, String),
    ids,
    ...(await generated(client, model)),
    aborted: await aborted(client, model),
    chat: await chatted(client, model),
    code: error.code,
    pointer: error.errors[0]?.pointer,
    requestIdIsVisible: error.requestId !== undefined,
    imported: hex((await client.tensor(imported.id, HOOK)).data),
  };
}

/** The error of a request to a server that does not allow this page. */
export async function refused(baseUrl: string, apiKey: string): Promise<string> {
  return await createClient({ baseUrl, apiKey, retries: 0 })
    .get("/v1/runs")
    .then(
      () => "nothing",
      (error: Error) => error.name,
    );
}

/** Follows a run and calls `cut`, which cuts the connection, after the fifth token. Returns the text. */
export async function followCut(baseUrl: string, apiKey: string, id: string, cut: () => Promise<void>): Promise<string> {
  let text = "";
  let n = 0;
  for await (const event of createClient({ baseUrl, apiKey }).runs.follow(id)) {
    if (event.type !== "token") continue;
    text += event.data.text;
    n += 1;
    if (n === 5) await cut();
  }
  return text;
}
