/** The data that the pictures show: three groups of texts, a direction, prompts to patch, and a small autoencoder. */
import { type Client, writeSafetensors } from "../../../clients/typescript/src/index";
import { SMOL } from "../browser/harness";
import { GROUPS, IOI, LANDMARK } from "./texts";

const LAYER = 12;
const HOOK = `blocks.${LAYER}.hook_resid_post`;
const FEATURES = 256;
const ACTIVE = 16;

/** What the addresses of the pages need. */
export interface Demo {
  groupsRun: string;
  /** Caches of the three groups, in the order of the texts. */
  groups: string[];
  landmark: string;
  clean: string;
  corrupt: string;
  direction: string;
  sae: string;
}

export async function makeDemo(client: Client): Promise<Demo> {
  const items = GROUPS.flatMap(({ label, metadata, texts }) =>
    texts.map((text) => ({ text, label, metadata: { ...metadata, words: text.split(" ").length }, tags: ["demo", label] })),
  );
  const groups = await client.run({ model: SMOL, items, capture: { hooks: ["resid_post"], positions: "all" } });
  const hooks = ["embed", "resid_pre", "attn.z", "attn.pattern", "attn_out", "mlp_out", "resid_post"];
  const landmark = await client.run({ model: SMOL, input: LANDMARK, capture: { hooks, positions: "all" }, tags: ["landmark"] });
  const pair = await client.run({ model: SMOL, input: [IOI.clean, IOI.corrupt], capture: { positions: "all" }, tags: ["ioi"] });
  await client.run({ model: SMOL, input: "Once upon a time", generate: { max_new_tokens: 24 }, tags: ["story"] });
  await client.post("/v1/directions", {
    body: {
      method: "difference_of_means",
      name: "good-bad",
      positive: { tags: ["good"] },
      negative: { tags: ["bad"] },
      position: "last",
    },
  });
  await loadSae(client, groups.id);
  return {
    groupsRun: groups.id,
    groups: groups.caches,
    landmark: landmark.caches[0] as string,
    clean: pair.caches[0] as string,
    corrupt: pair.caches[1] as string,
    direction: "good-bad",
    sae: "demo-12",
  };
}

/**
 * An autoencoder without training: each feature is the direction of one token of the texts, seen from their mean. That is enough
 * for features that mean something.
 */
async function loadSae(client: Client, run: string): Promise<void> {
  const rows = await client.runs.tensor(run, HOOK);
  const width = rows.shape.at(-1) as number;
  const count = rows.data.length / width;
  const mean = new Float32Array(width);
  for (let i = 0; i < rows.data.length; i++) mean[i % width] = (mean[i % width] as number) + (rows.data[i] as number) / count;
  const decoder = new Float32Array(FEATURES * width);
  const encoder = new Float32Array(width * FEATURES);
  for (let feature = 0; feature < FEATURES; feature++) {
    const row = Math.floor((feature * count) / FEATURES);
    const centred = mean.map((value, i) => (rows.data[row * width + i] as number) - value);
    const size = Math.sqrt(centred.reduce((sum, value) => sum + value * value, 0));
    for (let i = 0; i < width; i++) {
      const value = (centred[i] as number) / size;
      decoder[feature * width + i] = value;
      encoder[i * FEATURES + feature] = value;
    }
  }
  const weights = writeSafetensors({
    W_enc: { shape: [width, FEATURES], data: encoder },
    b_enc: { shape: [FEATURES], data: new Float32Array(FEATURES) },
    W_dec: { shape: [FEATURES, width], data: decoder },
    b_dec: { shape: [width], data: mean },
  });
  const form = new FormData();
  form.set("id", "demo-12");
  form.set("model", SMOL);
  form.set("cfg", new Blob([JSON.stringify(settings(width))]), "cfg.json");
  form.set("weights", new Blob([weights]), "sae_weights.safetensors");
  await client.request("/v1/saes", { method: "POST", body: form, query: { wait: 60 } });
}

/** In SAELens's form. */
function settings(width: number) {
  return {
    architecture: "topk",
    d_in: width,
    d_sae: FEATURES,
    k: ACTIVE,
    rescale_acts_by_decoder_norm: false,
    dtype: "float32",
    device: "cpu",
    apply_b_dec_to_input: true,
    normalize_activations: "none",
    reshape_activations: "none",
    metadata: {
      sae_lens_version: "6.54.12",
      model_name: "HuggingFaceTB/SmolLM2-135M-Instruct",
      hook_name: HOOK,
      prepend_bos: false,
      context_size: 256,
      model_from_pretrained_kwargs: {},
    },
  };
}
