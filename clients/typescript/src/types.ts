/**
 * The types of requests and answers that have a name here. They are taken from the operations of the specification, whose
 * ids are stable; the few taken from its schemas are the data of events, which belong to no operation.
 */
import type { components, operations } from "./openapi.js";

type Json<Content> = Content extends { "application/json": infer Value } ? Value : never;

/** Query parameters of an operation. */
export type Query<Id extends keyof operations> = operations[Id] extends { parameters: { query?: infer Value } }
  ? NonNullable<Value>
  : never;

/** The JSON body of an operation. */
export type Body<Id extends keyof operations> = operations[Id] extends { requestBody: { content: infer Content } }
  ? Json<Content>
  : never;

/** The JSON answer of an operation. */
export type Answer<Id extends keyof operations, Status extends number = 200> = operations[Id] extends {
  responses: { [S in Status]: { content: infer Content } };
}
  ? Json<Content>
  : never;

/** What to compute: the body of `POST /v1/runs`. */
export type CreateRun = Body<"createRun">;
/** A queued, running or ended request. */
export type Run = Answer<"getRun">;
/** What a run would store, from `POST /v1/runs?dry_run=true`. */
export type DryRun = Extract<Answer<"createRun", 200>, { object: "dry_run" }>;
/** The stored activations of one input. */
export type Cache = Answer<"getCache">;
/** A model that is served, is being loaded, or could not be loaded. */
export type Model = Answer<"getModel">;
/** A sparse autoencoder. */
export type Sae = Answer<"getSae">;
/** A direction without its vectors. */
export type Direction = Answer<"getDirection">;
/** A patching sweep: the body of `POST /v1/experiments/patching`. */
export type PatchingRequest = Body<"patchActivations">;
/** The metric of every cell of a patching sweep. */
export type Patching = Answer<"patchActivations">;
/** The body of `POST /openai/v1/chat/completions`. */
export type ChatRequest = Body<"openaiCreateChatCompletion">;
/** The body of `POST /openai/v1/completions`. */
export type CompletionRequest = Body<"openaiCreateCompletion">;
/** A part of a completion; a stream of completions has the shape of completions. */
export type CompletionChunk = Answer<"openaiCreateCompletion">;

type Schemas = components["schemas"];
/** An error answer (RFC 9457). */
export type Problem = Schemas["Problem"];
/** Data of a `run` event: the run, its speed and the estimated time left. */
export type RunSnapshot = Schemas["RunSnapshot"];
/** Data of a `token` event: a token that was generated. */
export type TokenEvent = Schemas["TokenEvent"];
/** Data of a `completion` event: a continuation has ended. */
export type CompletionEvent = Schemas["CompletionEvent"];
/** Data of a `progress` event of a patching sweep. */
export type PatchingProgress = Schemas["PatchingProgress"];
/** A part of a chat's answer. */
export type ChatChunk = Schemas["OpenAiChatChunk"];
