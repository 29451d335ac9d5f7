// Types of answers, as a program uses them. It is compiled and not run: `tsc --strict` shows whether unions narrow and members
// have the types that a reader of the reference expects.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

type Schemas = components["schemas"];

const client = createClient<paths>({ baseUrl: "http://127.0.0.1:8080" });

// A model that is served has sizes; one that is loading has progress.
const models = await client.GET("/v1/models");
for (const model of models.data?.items ?? []) {
  if (model.status === "ready") {
    const sizes: [number, number] = [model.n_layers, model.d_model];
    console.log(model.id, sizes, model.hooks?.[0]?.shape);
  } else if (model.status === "failed") {
    console.log(model.error?.code satisfies string | undefined);
  }
}

// A run and a dry run are told apart by `object`.
const made = await client.POST("/v1/runs", { body: { model: "smollm2-135m", input: ["Hello"] } });
if (made.data?.object === "run") {
  const cache: string | undefined = made.data.caches[0];
  console.log(made.data.status satisfies "queued" | "running" | "completed" | "failed" | "cancelled", cache);
} else if (made.data?.object === "dry_run") {
  console.log(made.data.n_bytes satisfies number);
}
if (made.error) {
  console.log(made.error.code, made.error.errors?.[0]?.pointer);
}

// Pages hold what single answers are.
const page = await client.GET("/v1/caches", { params: { query: { limit: 2, tag: ["tour"] } } });
const first: Schemas["Cache"] | undefined = page.data?.items[0];
const next: string | null | undefined = page.data?.next_cursor;
console.log(first?.hooks[0]?.shape, next);

// Every operation of an intervention, with its own words for positions.
const interventions: Schemas["Intervention"][] = [
  { op: "knockout", layers: [20, 21], from: { start: 1, end: 4 }, to: "last" },
  { op: "add", layers: 12, direction: { direction: "sentiment" }, strength: [-2, 0, 2], positions: "generated" },
  { op: "zero", hook: "attn.z", heads: [3], positions: { text: "Tower" } },
];
console.log(interventions);

// A tensor as JSON: nested arrays, or base64.
const layer = await client.GET("/v1/caches/{id}/layers/{layer}", { params: { path: { id: "a", layer: -1 } } });
if (layer.data && typeof layer.data === "object") {
  const values: string | unknown[] = layer.data.values;
  console.log(layer.data.shape satisfies number[], layer.data.dtype satisfies "float32" | "float16" | "bfloat16", values);
}

// The data of an event is JSON that has a type.
const snapshot: Schemas["RunSnapshot"] = JSON.parse("{}");
console.log(snapshot.n_done satisfies number, snapshot.tokens_per_second satisfies number);
