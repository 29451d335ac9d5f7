/** Event streams of a real server: followed, cut, aborted, and continued by a server that was killed and started again. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { type Client, readNpy, type RunEvent, writeSafetensors } from "../../src/index.js";
import { cuttingProxy, EIFFEL, MODEL, TestServer } from "./harness.js";

let server: TestServer;
let client: Client;

before(async () => {
  server = await TestServer.start();
  client = server.client();
});

after(async () => await server?.stop());

/** A run that generates `n` tokens, whose texts nothing ends before. */
const generation = (n: number, seed = 1) => ({
  model: MODEL,
  input: "Once upon a time",
  generate: { max_new_tokens: n, temperature: 0.9, seed },
  capture: { hooks: [], positions: "all" as const },
  reuse: false,
});

/** Follows to the end; `act` is called after each event. */
async function follow(from: Client, id: string, act: (n_tokens: number) => void | Promise<void> = () => {}): Promise<RunEvent[]> {
  const events: RunEvent[] = [];
  for await (const event of from.runs.follow(id)) {
    events.push(event);
    await act(events.filter(({ type }) => type === "token").length);
  }
  return events;
}

/** The generated text by the events and by the cache must be the same, every position once. */
async function checkText(events: RunEvent[], id: string): Promise<void> {
  const tokens = events.flatMap((event) => (event.type === "token" ? [event.data] : []));
  const cache = (await client.runs.caches(id).next()).value;
  assert.equal(tokens.map(({ text }) => text).join(""), cache?.completion?.text);
  const positions = tokens.map(({ position }) => position);
  assert.deepEqual(
    positions,
    positions.map((_, i) => positions[0]! + i),
  );
  assert.equal(events.filter(({ type }) => type === "completion").length, 1);
  const last = events.at(-1)!;
  assert.ok(last.type === "run" && last.data.status === "completed");
}

test("tokens as they are chosen", async () => {
  const run = await client.runs.create(generation(12));
  await checkText(await follow(client, run.id), run.id);
});

test("a stream whose connections are cut has every token once", async () => {
  const proxy = await cuttingProxy(server.url);
  const run = await client.runs.create(generation(40, 2));
  let cuts = 0;
  const events = await follow(server.client(proxy.url), run.id, (n) => {
    if (n === 5 * (cuts + 1) && cuts < 3) {
      cuts += 1;
      proxy.cut();
    }
  });
  proxy.close();
  assert.equal(cuts, 3);
  assert.ok(events.every(({ type }) => type !== "missed"));
  await checkText(events, run.id);
});

test("a stream goes on when the server was killed and started again", async () => {
  const run = await client.runs.create(generation(40, 3));
  let isRestarted = false;
  const events = await follow(client, run.id, async (n) => {
    if (n !== 6 || isRestarted) return;
    isRestarted = true;
    await server.kill();
    await server.begin();
  });
  assert.ok(isRestarted);
  await checkText(events, run.id);
});

test("leaving the loop and aborting close the connection; the run goes on", async () => {
  const proxy = await cuttingProxy(server.url);
  const through = server.client(proxy.url);
  const run = await client.runs.create(generation(30, 4));
  for await (const { type } of through.runs.follow(run.id)) {
    if (type === "token") break;
  }
  const controller = new AbortController();
  await assert.rejects(
    async () => {
      for await (const { type } of through.runs.follow(run.id, { signal: controller.signal })) {
        if (type === "token") controller.abort();
      }
    },
    { name: "AbortError" },
  );
  await until(() => proxy.n_open() === 0);
  proxy.close();
  assert.equal((await client.waitForRun(run.id)).status, "completed");
});

test("waiting with progress", async () => {
  const seen: string[] = [];
  const run = await client.run(
    { model: MODEL, input: [EIFFEL, "Hello"], reuse: false },
    { onProgress: ({ status }) => seen.push(status) },
  );
  assert.equal(run.n_done, 2);
  assert.equal(seen.at(-1), "completed");
});

test("a run that is cancelled", async () => {
  const run = await client.runs.create(generation(200, 5));
  await client.post("/v1/runs/{id}/cancel", { params: { path: { id: run.id } } });
  await assert.rejects(client.waitForRun(run.id), { name: "RunFailedError" });
  assert.equal((await client.waitForRun(run.id, { allowFailure: true })).status, "cancelled");
});

test("a chat and completions in OpenAI's shape", async () => {
  const chat = {
    model: MODEL,
    messages: [{ role: "user", content: "Name three colours." }],
    max_completion_tokens: 12,
    temperature: 0,
  };
  let streamed = "";
  for await (const { choices } of client.openai.streamChat(chat)) streamed += choices[0]?.delta.content ?? "";
  const whole = await client.post("/openai/v1/chat/completions", { body: chat });
  assert.equal(streamed, whole.choices[0]?.message.content);

  const completion = { model: MODEL, prompt: EIFFEL, max_tokens: 8, temperature: 0 };
  let text = "";
  for await (const { choices } of client.openai.streamCompletion(completion)) text += choices[0]?.text ?? "";
  assert.equal(text, (await client.post("/openai/v1/completions", { body: completion })).choices[0]?.text);

  const proxy = await cuttingProxy(server.url);
  const controller = new AbortController();
  await assert.rejects(
    async () => {
      const stream = server
        .client(proxy.url)
        .openai.streamChat({ ...chat, max_completion_tokens: 500 }, { signal: controller.signal });
      for await (const chunk of stream) if (chunk.choices[0]?.delta.content) controller.abort();
    },
    { name: "AbortError" },
  );
  await until(() => proxy.n_open() === 0);
  proxy.close();
});

test("a model that is loaded and unloaded", async () => {
  const id = "second";
  await client.post("/v1/models", { body: { id, source: TestServer.modelSource } });
  const loading: string[] = [];
  for await (const { status } of client.models.follow(id)) loading.push(status);
  assert.equal(loading.at(-1), "ready");
  const run = await client.runs.create({ ...generation(30, 6), model: id });
  await client.delete("/v1/models/{id}", { params: { path: { id } } });
  const unloading: string[] = [];
  for await (const { status } of client.models.follow(id)) unloading.push(status);
  assert.deepEqual([...new Set(unloading)], ["unloading"]);
  assert.equal((await client.waitForRun(run.id)).status, "completed");
  await assert.rejects(client.models.follow(id).next(), { status: 404 });
});

test("an autoencoder that is uploaded, followed and used", async () => {
  const [d_in, d_sae] = [576, 4];
  // Each feature reads and writes one coordinate of the residual stream.
  const eye = (rows: number, columns: number) =>
    Float32Array.from({ length: rows * columns }, (_, i) => (Math.floor(i / columns) === i % columns ? 1 : 0));
  const weights = writeSafetensors({
    W_enc: { shape: [d_in, d_sae], data: eye(d_in, d_sae) },
    W_dec: { shape: [d_sae, d_in], data: eye(d_sae, d_in) },
    b_enc: { shape: [d_sae], data: new Float32Array(d_sae) },
    b_dec: { shape: [d_in], data: new Float32Array(d_in) },
  });
  const cfg = {
    architecture: "standard",
    d_in,
    d_sae,
    dtype: "float32",
    device: "cpu",
    apply_b_dec_to_input: false,
    normalize_activations: "none",
    reshape_activations: "none",
    metadata: { model_name: MODEL, hook_name: "blocks.12.hook_resid_post", prepend_bos: false },
  };
  const form = new FormData();
  form.set("id", "first-four");
  form.set("model", MODEL);
  form.set("cfg", new Blob([JSON.stringify(cfg)], { type: "application/json" }));
  form.set("weights", new Blob([weights]));
  await client.post("/v1/saes", { body: form });
  const statuses: string[] = [];
  for await (const sae of client.saes.follow("first-four")) statuses.push(sae.status);
  assert.equal(statuses.at(-1), "ready");

  const run = await client.run({ model: MODEL, input: EIFFEL, capture: { layers: [12], positions: "all" } });
  const id = run.caches[0]!;
  const features = await client.post("/v1/caches/{id}/features", {
    params: { path: { id }, query: { format: "npy" } },
    body: { sae: "first-four" },
    parseAs: "arrayBuffer",
  });
  const tensor = readNpy(features);
  const resid = await client.tensor(id, "blocks.12.hook_resid_post");
  const expected = [...resid.rows()].flatMap((row) => [...row.data.subarray(0, d_sae)].map((value) => Math.max(value, 0)));
  assert.deepEqual(tensor.shape, [9, d_sae]);
  assert.deepEqual([...tensor.data], expected);
});

async function until(holds: () => boolean): Promise<void> {
  for (const deadline = Date.now() + 10_000; !holds(); await new Promise((next) => setTimeout(next, 20))) {
    assert.ok(Date.now() < deadline, "it does not happen");
  }
}
