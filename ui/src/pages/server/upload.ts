/** Sends an autoencoder's two files. */
import { client } from "../../server/client";

export interface SaeFiles {
  id: string;
  model: string;
  cfg: Blob;
  weights: Blob;
}

/** The server checks the names before the weights arrive, so they come first. */
export function formOf({ id, model, cfg, weights }: SaeFiles): FormData {
  const form = new FormData();
  form.set("id", id);
  form.set("model", model);
  form.set("cfg", cfg, "cfg.json");
  form.set("weights", weights, "sae_weights.safetensors");
  return form;
}

export async function uploadSae(files: SaeFiles, signal: AbortSignal): Promise<void> {
  await client.request("/v1/saes", { method: "POST", body: formOf(files), signal });
}
