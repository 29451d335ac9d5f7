/** Client for Residuum, an activation server for language models. `createClient` is where to begin. */
export {
  createClient,
  type Client,
  type ClientOptions,
  type CreateRunOptions,
  type ListQuery,
  type WaitOptions,
} from "./client.js";
export type { Dtype, TensorData } from "./dtype.js";
export { ConnectionError, type ErrorCode, type FieldError, FormatError, ResiduumError, RunFailedError } from "./error.js";
export type { CallOptions, FollowOptions, PatchingEvent, RunEvent } from "./events.js";
export { type LayersOptions, type TensorOptions, tensorOf } from "./fetch_tensor.js";
export type { BinaryBody, HttpClient, Methods } from "./http.js";
export { readNpy } from "./npy.js";
export type { components, operations, paths } from "./openapi.js";
export { readSafetensors, type Safetensors, type TensorToWrite, writeSafetensors } from "./safetensors.js";
export { EventParser, readEvents, type ServerSentEvent } from "./sse.js";
export { type Activations, type Nested, Tensor, type TensorInfo } from "./tensor.js";
export { type ApiKey, type Fetch, idempotencyKey, queryString, type RetryOptions, type SendOptions } from "./transport.js";
export type * from "./types.js";
