/** What the types allow and refuse: nothing runs, the tests do not compile otherwise. */
import type { Activations, Cache, Client, Model, Run, RunEvent } from "../src/index.js";

/** Compiles only if both types are the same. */
function same<A, B>(_: (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false): void {}

export async function allowed(client: Client): Promise<void> {
  const { get, post } = client;
  const run = await get("/v1/runs/{id}", { params: { path: { id: "r" } } });
  same<typeof run, Run>(true);
  const model = await get("/v1/models/{id}", { params: { path: { id: "m" } } });
  same<typeof model, Model>(true);
  const bytes = await get("/v1/caches/{id}/safetensors", { params: { path: { id: "c" } }, parseAs: "arrayBuffer" });
  same<typeof bytes, ArrayBuffer>(true);
  const deleted = await client.delete("/v1/runs/{id}", { params: { path: { id: "r" } } });
  same<typeof deleted, undefined>(true);
  const tensor = await client.tensor("c", "h");
  same<typeof tensor, Activations>(true);
  same<typeof tensor.data, Float32Array>(true);
  for await (const cache of client.caches.all()) same<typeof cache, Cache>(true);
  for await (const event of client.runs.follow("r")) same<typeof event, RunEvent>(true);
  await get("/v1/runs");
  await post("/v1/caches", { body: new Blob(), params: { query: { model: "m" } } });
  await post("/v1/runs", { body: { model: "m", input: "x" }, signal: AbortSignal.timeout(1) });
}

export async function refused(client: Client): Promise<void> {
  const { get, post } = client;
  // @ts-expect-error: there is no such path
  await get("/v1/run");
  // @ts-expect-error: the id is missing
  await get("/v1/runs/{id}");
  // @ts-expect-error: the body is missing
  await post("/v1/runs");
  // @ts-expect-error: a model is a string
  await post("/v1/runs", { body: { model: 3, input: "x" } });
  // @ts-expect-error: no such field
  await post("/v1/runs", { body: { model: "m", inputs: "x" } });
  // @ts-expect-error: no such field of a capture
  await client.run({ model: "m", input: "x", capture: { hook: "resid_post" } });
  // @ts-expect-error: no such parameter
  await post("/v1/runs", { body: { model: "m", input: "x" }, params: { query: { wiat: 3 } } });
  // @ts-expect-error: no such position
  await post("/v1/runs", { body: { model: "m", input: "x", capture: { positions: "lsat" } } });
  // @ts-expect-error: no such tokens
  await post("/v1/runs", { body: { model: "m", input: "x", interventions: [{ op: "knockout", from: "lsat" }] } });
  // @ts-expect-error: no such field of a range
  await post("/v1/runs", { body: { model: "m", input: "x", interventions: [{ op: "knockout", to: { strat: 1 } }] } });
  // @ts-expect-error: no such operation
  await post("/v1/runs", { body: { model: "m", input: "x", interventions: [{ op: "knokcout" }] } });
  // @ts-expect-error: a file is not JSON
  await post("/v1/caches", { body: [1, 2, 3] });
  // @ts-expect-error: no such format
  await get("/v1/export", { params: { query: { format: "csv" } }, parseAs: "blob" });
  // @ts-expect-error: no such type
  await client.tensor("c", "h", { dtype: "float64" });
}
