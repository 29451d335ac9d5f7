/** Every request of the tour in the repository's README, as a typed call, in the same order. */
import type { Client } from "../../src/index.js";

/** What the requests answered, for the test that compares them. */
export type Answers = Record<string, unknown>;

/** Makes the requests against a server with the demo's model. */
export async function tour(client: Client): Promise<Answers> {
  const { get, post, patch } = client;
  const model = "smollm2-135m";
  const eiffel = "The Eiffel Tower is in the city of";

  const run = await post("/v1/runs", {
    params: { query: { wait: 30 } },
    body: {
      model,
      input: [eiffel, "The Colosseum is in the city of"],
      capture: { hooks: ["resid_post", "logits"], positions: "last" },
      tags: ["tour"],
    },
  });
  if (!("caches" in run)) throw new Error("no dry run was asked for");
  const [a, b] = run.caches;
  if (a === undefined || b === undefined) throw new Error("the run has two caches");

  const described = await get("/v1/caches/{id}", { params: { path: { id: a } } });
  const layer = await get("/v1/caches/{id}/layers/{layer}", { params: { path: { id: a, layer: 12 } } });
  const layers = await get("/v1/caches/{id}/layers", {
    params: { path: { id: a }, query: { format: "npy" } },
    parseAs: "arrayBuffer",
  });
  const file = await get("/v1/caches/{id}/safetensors", { params: { path: { id: a } }, parseAs: "arrayBuffer" });

  const compared = await post("/v1/comparisons", { body: { mode: "pairs", a: [a], b: [b], metrics: ["cosine", "euclidean"] } });
  const lens = await post("/v1/caches/{id}/lens", {
    params: { path: { id: a } },
    body: { layers: [10, 20, 28], top_k: 2, tokens: [" Paris"] },
  });
  const found = await post("/v1/search", {
    body: { query: { text: "The Louvre is in the city of", model }, layer: 20, k: 2, filter: { tags: ["tour"] } },
  });

  const reused = await post("/v1/runs", {
    params: { query: { wait: 30 } },
    body: { model, input: eiffel, capture: { layers: [12, -1] } },
  });
  const tokens = await post("/v1/tokenize", {
    body: { model, messages: [{ role: "user", content: "Where is the Colosseum?" }] },
  });

  const generated = await post("/v1/runs", {
    params: { query: { wait: 60 } },
    body: {
      model,
      input: eiffel,
      generate: { max_new_tokens: 12, stop: "\n" },
      capture: { hooks: ["resid_post"], positions: "all" },
    },
  });

  const knockout = await post("/v1/runs", {
    params: { query: { wait: 60 } },
    body: {
      model,
      input: eiffel,
      interventions: [
        { op: "knockout", layers: [20, 21, 22, 23, 24, 25, 26, 27, 28, 29], from: { start: 1, end: 4 }, to: "last" },
      ],
    },
  });
  const patching = await post("/v1/experiments/patching", {
    body: {
      model,
      answer: " Mary",
      against: " John",
      clean: "When John and Mary went to the store, John gave a drink to",
      corrupt: "When John and Mary went to the store, Mary gave a drink to",
      sweep: { hook: "resid_pre", positions: "each", layers: [0, 15, 20, 25] },
    },
  });

  const planned = await post("/v1/runs", {
    params: { query: { dry_run: true } },
    body: { model, input: "Hello", capture: { hooks: ["attn.pattern", "mlp.post"], layers: [0], positions: "all" } },
  });
  const listed = await get("/v1/caches", { params: { query: { tag: ["tour"], limit: 1 } } });
  const counted = await get("/v1/caches", {
    params: { query: { text: 'colosseum "city of"', tag: ["tour"], count: true, limit: 1 } },
  });
  const pinned = await patch("/v1/caches/{id}", { params: { path: { id: a } }, body: { pinned: true } });

  const atWord = await post("/v1/runs", {
    params: { query: { dry_run: true } },
    body: { model, input: eiffel, capture: { positions: { text: "Tower" } } },
  });
  const mean = await post("/v1/runs", {
    params: { query: { wait: 30 } },
    body: {
      model,
      messages: [{ role: "user", content: "Where is the Colosseum?" }],
      capture: { layers: 12, positions: { mean: { special: false } } },
    },
  });

  const exported = await get("/v1/export", {
    params: { query: { tag: ["tour"], layers: "12", format: "npz" } },
    parseAs: "arrayBuffer",
  });
  const imported = await post("/v1/caches", {
    params: { query: { label: "again" } },
    headers: { "content-type": "application/vnd.safetensors" },
    body: file,
  });

  const refused = await client.http.POST("/v1/runs", { body: { model, input: "Hello", capture: { layers: 30 } } });

  return {
    run,
    described,
    layer,
    layers,
    file,
    compared,
    lens,
    found,
    reused,
    tokens,
    generated,
    knockout,
    patching,
    planned,
    listed,
    counted,
    pinned,
    atWord,
    mean,
    exported,
    imported,
    refused: refused.error,
  };
}
