/** What several pages need to know: the models, and the autoencoders. */
import type { components, Model, Sae } from "residuum";
import { client } from "./client";
import { type Resource, useResource } from "./resource";

export type Schemas = components["schemas"];
/** A model that can run. */
export type ReadyModel = Schemas["ReadyModel"];
export type ReadySae = Schemas["ReadySae"];
export type Tokenization = Schemas["Tokenization"];

export function useModels(): Resource<Model[]> {
  return useResource("models", async (signal) => (await client.get("/v1/models", { signal })).items);
}

/** One model with its hooks, which the list leaves out. */
export function useModel(id: string | null): Resource<Model> {
  return useResource(id === null ? null : `model ${id}`, (signal) =>
    client.get("/v1/models/{id}", { params: { path: { id: id as string } }, signal }),
  );
}

export function useSaes(): Resource<Sae[]> {
  return useResource("saes", async (signal) => (await client.get("/v1/saes", { signal })).items);
}

export function readyModels(models: readonly Model[] | undefined): ReadyModel[] {
  return (models ?? []).filter((model): model is ReadyModel => model.status === "ready");
}

export function readySaes(saes: readonly Sae[] | undefined): ReadySae[] {
  return (saes ?? []).filter((sae): sae is ReadySae => sae.status === "ready");
}
