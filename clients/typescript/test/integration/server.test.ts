/** The client against a real server with a key, in Node. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import {
  type Activations,
  type Client,
  readNpy,
  readSafetensors,
  ResiduumError,
  tensorOf,
  writeSafetensors,
} from "../../src/index.js";
import { hex } from "../unit/fixtures.js";
import { EIFFEL, MODEL, TestServer } from "./harness.js";

let server: TestServer;
let client: Client;
let cache: string;
let run: string;

before(async () => {
  server = await TestServer.start();
  client = server.client();
  const made = await client.run({
    model: MODEL,
    input: [EIFFEL, "The Colosseum is in the city of Rome, and"],
    capture: { hooks: ["resid_post", "attn.pattern", "attn.z"], layers: [0, 12, 29], positions: "all" },
    tags: ["test"],
  });
  run = made.id;
  cache = made.caches[0]!;
});

after(async () => await server?.stop());

const bytes = async (path: string) => new Uint8Array(await (await client.request(path)).arrayBuffer());

/** The values of a JSON answer as float32. */
function flat(values: unknown): Float32Array {
  return Float32Array.from((values as unknown[]).flat(Infinity) as number[]);
}

test("a tensor has the bits that npy, safetensors and JSON have", async () => {
  for (const hook of ["blocks.12.hook_resid_post", "blocks.0.attn.hook_pattern", "blocks.29.attn.hook_z"]) {
    const path = `/v1/caches/${cache}/tensors/${hook}`;
    const tensor = await client.tensor(cache, hook);
    const npy = readNpy(await bytes(`${path}?format=npy`));
    assert.equal(hex(tensor.data), hex(npy.data));
    assert.deepEqual(tensor.shape, npy.shape);
    assert.equal(hex(readSafetensors(await bytes(`${path}?format=safetensors`)).tensors.get(hook)!.data), hex(npy.data));
    const json = await client.get("/v1/caches/{id}/tensors/{hook}", { params: { path: { id: cache, hook } } });
    assert.equal(hex(flat(json.values)), hex(npy.data));
    assert.deepEqual(
      [tensor.info.hook, tensor.shape, tensor.info.axes, tensor.dtype],
      [json.hook, json.shape, json.axes, json.dtype],
    );
  }
});

test("halves are those that the server sends, widened as it widens them", async () => {
  const hook = "blocks.12.hook_resid_post";
  for (const dtype of ["float16", "bfloat16"] as const) {
    const tensor = await client.tensor(cache, hook, { dtype });
    assert.equal(tensor.dtype, dtype);
    const wide = readNpy(await bytes(`/v1/caches/${cache}/tensors/${hook}?format=npy&dtype=${dtype}`));
    assert.equal(wide.dtype, dtype === "float16" ? "float16" : "float32");
    assert.equal(hex(tensor.data), hex(wide.data));
    assert.equal(hex(tensor.bits), hex(await bytes(`/v1/caches/${cache}/tensors/${hook}?format=raw&dtype=${dtype}`)));
    const json = await client.get("/v1/caches/{id}/tensors/{hook}", { params: { path: { id: cache, hook }, query: { dtype } } });
    assert.equal(hex(flat(json.values)), hex(tensor.data));
  }
  const response = await client.request(`/v1/caches/${cache}/tensors/${hook}?format=npy&dtype=bfloat16`);
  assert.equal((await tensorOf(response)).info.convertedFrom, "bfloat16");
});

test("positions: one drops the axis, several keep it", async () => {
  const hook = "blocks.12.hook_resid_post";
  const all = await client.tensor(cache, hook);
  const last = await client.tensor(cache, hook, { position: "last" });
  assert.deepEqual([last.shape, last.info.axes, last.info.positions], [[576], ["d_model"], undefined]);
  assert.equal(hex(last.data), hex(all.row(-1).data));
  const some = await client.tensor(cache, hook, { positions: [0, -1] });
  assert.deepEqual(some.shape, [2, 576]);
  assert.equal(hex(some.row(1).data), hex(last.data));
  assert.deepEqual((await client.tensor(cache, hook, { positions: "1:4" })).shape, [3, 576]);
});

test("stacks of layers and of caches name what they have", async () => {
  const layers = await client.caches.layers(cache, { position: -1 });
  assert.deepEqual(
    [layers.shape, layers.info.layers, layers.info.axes],
    [
      [3, 576],
      [0, 12, 29],
      ["layer", "d_model"],
    ],
  );
  const layer = await client.caches.layer(cache, -1, { position: -1 });
  assert.equal(hex(layers.row(2).data), hex(layer.data));
  assert.equal(layer.info.hook, "blocks.29.hook_resid_post");
  assert.deepEqual((await client.caches.layers(cache, { hook: "attn.z", position: "mean" })).shape, [3, 9, 64]);

  const described = [];
  for await (const one of client.runs.caches(run)) described.push(one);
  const lengths = described.map((one) => one.n_tokens);
  const rows = await client.runs.tensor(run, "blocks.12.hook_resid_post");
  assert.deepEqual(rows.info.offsets, [0, lengths[0]!, lengths[0]! + lengths[1]!]);
  assert.deepEqual(
    rows.info.caches,
    described.map((one) => one.id),
  );
  assert.equal(
    hex(rows.data.subarray(0, lengths[0]! * 576)),
    hex((await client.tensor(cache, "blocks.12.hook_resid_post")).data),
  );
  assert.deepEqual((await client.runs.tensor(run, "blocks.12.hook_resid_post", { position: "last" })).shape, [2, 576]);
});

test("a whole cache has its token ids as 64-bit integers", async () => {
  const { tensors, metadata } = await client.caches.load(cache);
  const described = await client.get("/v1/caches/{id}", { params: { path: { id: cache } } });
  assert.deepEqual([...tensors.get("token_ids")!.data], described.token_ids.map(BigInt));
  assert.deepEqual(
    [...tensors.keys()].filter((name) => name !== "token_ids").sort(),
    described.hooks.map(({ hook }) => hook).sort(),
  );
  assert.equal(metadata.model, MODEL);
  const pattern = tensors.get("blocks.12.attn.hook_pattern") as Activations;
  assert.equal(hex(pattern.data), hex((await client.tensor(cache, "blocks.12.attn.hook_pattern")).data));
});

test("answers of analyses in float64", async () => {
  const compared = { mode: "matrix", caches: [cache, cache], layers: [12], metrics: ["cosine"], position: "last" } as const;
  const json = await client.post("/v1/comparisons", {
    body: { ...compared, caches: [...compared.caches], layers: [12], metrics: ["cosine"] },
  });
  for (const format of ["npy", "raw", "safetensors"]) {
    const headers = { "content-type": "application/json" };
    const response = await client.request("/v1/comparisons", {
      method: "POST",
      body: JSON.stringify(compared),
      headers,
      query: { format },
    });
    const tensor = await tensorOf(response);
    assert.equal(tensor.dtype, "float64");
    assert.deepEqual([...tensor.data], (Object.values(json.values ?? {}) as unknown[]).flat(Infinity), format);
  }
});

test("an import gives back what was exported, and what was written here", async () => {
  const file = await bytes(`/v1/caches/${cache}/safetensors`);
  const original = await client.get("/v1/caches/{id}", { params: { path: { id: cache } } });
  const copy = await client.caches.import(new Blob([file]), { label: "copy" });
  assert.deepEqual([copy.content_hash, copy.label], [original.content_hash, "copy"]);
  const values = Float32Array.from({ length: 8 }, (_, i) => i / 3);
  const written = writeSafetensors({
    "blocks.1.hook_resid_post": { shape: [2, 4], data: values },
    token_ids: { shape: [2], data: BigInt64Array.of(5n, 6n) },
  });
  const key = { idempotencyKey: `import-${run}` };
  const made = await client.caches.import(written, { model: "elsewhere" }, key);
  assert.equal(hex((await client.tensor(made.id, "blocks.1.hook_resid_post")).data), hex(values));
  assert.deepEqual(made.token_ids, [5, 6]);
  assert.equal((await client.caches.import(written, { model: "elsewhere" }, key)).id, made.id, "stored once");
});

test("an export as one matrix", async () => {
  const file = await client.get("/v1/export", {
    params: { query: { tag: ["test"], layers: "12", position: "last" } },
    parseAs: "arrayBuffer",
  });
  const { tensors } = readSafetensors(file);
  const rows = await client.runs.tensor(run, "blocks.12.hook_resid_post", { position: "last" });
  const exported = tensors.get("X") as Activations;
  assert.deepEqual([...exported.rows()].map((row) => hex(row.data)).sort(), [...rows.rows()].map((row) => hex(row.data)).sort());
});

test("lists over several pages", async () => {
  const ids = [];
  for await (const { id } of client.caches.all({ tag: ["test"], limit: 1 })) ids.push(id);
  assert.deepEqual(ids.length, 2);
  assert.ok(ids.includes(cache));
  const runs = [];
  for await (const { id } of client.runs.all({ limit: 1 })) runs.push(id);
  assert.ok(runs.length >= 2 && new Set(runs).size === runs.length && runs.includes(run));
});

test("the same idempotency key gives the same run; another body is refused", async () => {
  const body = { model: MODEL, input: "Hello", capture: { layers: [3] } };
  const options = { idempotencyKey: `key-${run}` };
  const first = await client.runs.create(body, options);
  assert.equal((await client.runs.create(body, options)).id, first.id);
  assert.notEqual((await client.runs.create(body)).id, first.id);
  await assert.rejects(client.runs.create({ ...body, input: "Bye" }, options), { code: "idempotency_key_reused" });
  assert.equal((await client.run(body)).n_reused, 1, "a key of its own does not keep a run from using what is stored");
});

test("errors say what would be right", async () => {
  await assert.rejects(client.runs.create({ model: MODEL, input: "Hello", capture: { layers: 30 } }), (error: Error) => {
    assert.ok(error instanceof ResiduumError);
    assert.deepEqual([error.status, error.code, error.errors[0]?.pointer], [422, "layer_out_of_range", "/capture/layers"]);
    assert.ok(error.requestId);
    return true;
  });
  await assert.rejects(client.tensor(cache, "blocks.1.hook_resid_post"), { status: 404, code: "hook_not_in_cache" });
  await assert.rejects(client.get("/v1/runs/{id}", { params: { path: { id: "nothing" } } }), { status: 404 });
  const { createClient } = await import("../../src/index.js");
  await assert.rejects(createClient({ baseUrl: server.url }).get("/v1/runs"), { status: 401 });
  await assert.rejects(createClient({ baseUrl: server.url }).runs.follow(run).next(), { status: 401 });
  await assert.rejects(client.openai.streamChat({ model: "nothing", messages: [{ role: "user", content: "x" }] }).next(), {
    status: 404,
    code: "model_not_found",
  });
});

test("a dry run stores nothing", async () => {
  const plan = await client.dryRun({ model: MODEL, input: EIFFEL, capture: { hooks: ["resid_post"], positions: "all" } });
  assert.equal(plan.n_items, 1);
});

test("a sweep with progress has the numbers of one without", async () => {
  const sweep = {
    model: MODEL,
    answer: " Mary",
    against: " John",
    clean: "When John and Mary went to the store, John gave a drink to",
    corrupt: "When John and Mary went to the store, Mary gave a drink to",
    sweep: { hook: "resid_pre", layers: [0, 15, 29] },
  };
  const seen: number[][] = [];
  const result = await client.patching.run(sweep, { onProgress: (done, total) => seen.push([done, total]) });
  const json = await client.post("/v1/experiments/patching", { body: sweep });
  assert.deepEqual(result.values, json.values);
  assert.ok(seen.length > 0 && seen.every(([, total]) => total === 3));
  await assert.rejects(client.patching.run({ ...sweep, sweep: { hook: "nothing" } }), { code: "unknown_hook" });
});
