// Calls a running server with the types of openapi-typescript and with openapi-fetch. `node live.js http://127.0.0.1:8080`: the
// server needs the model `smollm2-135m`. The last line is `N passed, N failed`.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

type Schemas = components["schemas"];
declare const process: { argv: string[]; exitCode: number };

const url = process.argv[2] ?? "http://127.0.0.1:8080";
const client = createClient<paths>({ baseUrl: url });
const model = "smollm2-135m";
const eiffel = "The Eiffel Tower is in the city of";

/** A completed run; anything else is an error. */
async function run(body: Schemas["CreateRun"]): Promise<Schemas["Run"]> {
  const made = await client.POST("/v1/runs", { params: { query: { wait: 120 } }, body });
  if (made.data?.object !== "run" || made.data.status !== "completed") throw new Error(JSON.stringify(made.error ?? made.data));
  return made.data;
}

const first = await run({
  model,
  input: [eiffel, "The Colosseum is in the city of"],
  capture: { hooks: ["resid_post", "logits"], positions: "last" },
  tags: ["generated"],
});
const [a = "", b = ""] = first.caches;
const cache = { path: { id: a } };

/** Bytes of an answer. openapi-typescript has bytes as strings. */
const bytes = (data: unknown) => new Uint8Array(data instanceof ArrayBuffer ? data : new ArrayBuffer(0));

const checks: Record<string, () => Promise<boolean>> = {
  async "models have sizes"() {
    const { data } = await client.GET("/v1/models");
    const served = data?.items[0];
    return served?.status === "ready" && served.n_layers === 30;
  },
  async "dry run"() {
    const capture: Schemas["Capture"] = { layers: 12, positions: { text: "Tower" } };
    const { data } = await client.POST("/v1/runs", { params: { query: { dry_run: true } }, body: { model, input: eiffel, capture } });
    return data?.object === "dry_run" && data.items[0]?.positions === 3 && data.n_bytes === 576 * 4;
  },
  async cache() {
    const { data } = await client.GET("/v1/caches/{id}", { params: cache });
    return data?.text === eiffel && data.n_layers === 30;
  },
  async caches() {
    const { data } = await client.GET("/v1/caches", { params: { query: { tag: ["generated"], limit: 1 } } });
    return data?.items.length === 1;
  },
  async "layer as npy"() {
    const params = { path: { id: a, layer: 12 }, query: { format: "npy" } } as const;
    const { data } = await client.GET("/v1/caches/{id}/layers/{layer}", { params, parseAs: "arrayBuffer" });
    return bytes(data)[0] === 0x93 && bytes(data).length === 128 + 576 * 4;
  },
  async "layer as JSON"() {
    const { data } = await client.GET("/v1/caches/{id}/layers/{layer}", { params: { path: { id: a, layer: -1 } } });
    return typeof data === "object" && data.shape[0] === 576 && data.values.length === 576;
  },
  async safetensors() {
    const { data } = await client.GET("/v1/caches/{id}/safetensors", { params: cache, parseAs: "arrayBuffer" });
    return new TextDecoder("latin1").decode(bytes(data)).includes("blocks.12.hook_resid_post");
  },
  async comparison() {
    const { data } = await client.POST("/v1/comparisons", { body: { mode: "pairs", a: [a], b: [b], metrics: ["cosine"] } });
    return typeof data === "object" && data.mode === "pairs";
  },
  async knockout() {
    const change: Schemas["Intervention"] = { op: "knockout", layers: [20, 21], from: { start: 1, end: 4 }, to: "last" };
    return (await run({ model, input: eiffel, interventions: [change] })).caches[0] !== a;
  },
  async patching() {
    const text = (name: string) => `When John and Mary went to the store, ${name} gave a drink to`;
    const { data } = await client.POST("/v1/experiments/patching", {
      body: {
        model,
        clean: text("John"),
        corrupt: text("Mary"),
        answer: " Mary",
        against: " John",
        sweep: { hook: "resid_pre", positions: "each", layers: [0, 25] },
      },
    });
    return typeof data === "object" && data.axes.join() === "layer,pos" && data.values.length === 2;
  },
  async search() {
    const { data } = await client.POST("/v1/search", {
      body: { query: { text: "The Louvre is in the city of", model }, layer: 20, k: 2, filter: { tags: ["generated"] } },
    });
    return data?.results[0]?.hits.length === 2;
  },
  async edit() {
    const { data } = await client.PATCH("/v1/caches/{id}", { params: cache, body: { pinned: true } });
    return data?.pinned === true;
  },
  async events() {
    const { data } = await client.GET("/v1/runs/{id}/events", { params: { path: { id: first.id } }, parseAs: "text" });
    const line = data?.split("\n").find((line) => line.startsWith("data:"));
    const snapshot: Schemas["RunSnapshot"] = JSON.parse(line?.slice(5) ?? "null");
    return snapshot.id === first.id && snapshot.n_done === 2;
  },
  async export() {
    const query = { tag: ["generated"], layers: "12", format: "npz" as const };
    const { data } = await client.GET("/v1/export", { params: { query }, parseAs: "arrayBuffer" });
    return new TextDecoder().decode(bytes(data).slice(0, 2)) === "PK";
  },
  async import() {
    const file = await client.GET("/v1/caches/{id}/safetensors", { params: cache, parseAs: "arrayBuffer" });
    const { data } = await client.POST("/v1/caches", {
      params: { query: { label: "again" } },
      headers: { "content-type": "application/vnd.safetensors" },
      body: "",
      bodySerializer: () => bytes(file.data),
    });
    return data?.label === "again";
  },
  async direction() {
    const vectors = [{ layer: 12, values: Array.from({ length: 576 }, (_, index) => index) }];
    const { data } = await client.POST("/v1/directions", { body: { method: "upload", name: "generated", vectors } });
    const gone = await client.DELETE("/v1/directions/{direction}", { params: { path: { direction: "generated" } } });
    return data?.method === "upload" && gone.response.status === 204;
  },
  async error() {
    const { error } = await client.GET("/v1/caches/{id}", { params: { path: { id: "01a20f3c-14f2-7223-86f1-36bcd607e807" } } });
    return error?.code === "cache_not_found";
  },
};

let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  const why = await check().then((ok) => (ok ? "" : "another answer"), String);
  failed += why ? 1 : 0;
  console.log(why ? `FAIL  ${name}: ${why}` : `ok    ${name}`);
}
console.log(`${Object.keys(checks).length - failed} passed, ${failed} failed`);
process.exitCode = failed ? 1 : 0;
