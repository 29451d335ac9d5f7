/** Tensors of the routes that send them, in the format that needs the fewest copies. */
import type { Dtype, TensorData } from "./dtype.js";
import { isDtype } from "./dtype.js";
import { FormatError } from "./error.js";
import type { CallOptions } from "./events.js";
import { readNpy } from "./npy.js";
import { readSafetensors, type Safetensors } from "./safetensors.js";
import { type Activations, activations, Tensor, type TensorInfo } from "./tensor.js";
import { reading, type Transport } from "./transport.js";

/** Which part of a tensor, and of what type. */
export interface TensorOptions extends CallOptions {
  /** One position, whose axis is dropped: a number (negative ones count from the end), `last` or `mean`. */
  position?: number | "last" | "mean" | undefined;
  /** Several positions, whose axis is kept. A string is `all` or `start:end`. */
  positions?: readonly number[] | string | undefined;
  /** Type of the values that are sent; the stored one if left out. */
  dtype?: Extract<Dtype, "float32" | "float16" | "bfloat16"> | undefined;
}

/** Options for the residual stream, or another hook, of several layers. */
export interface LayersOptions extends TensorOptions {
  /** A hook without its layer; `resid_post` if left out. */
  hook?: string | undefined;
}

/** One hook of a cache or a layer of it, as the elements alone: the answer's own memory is the tensor's. */
export async function fetchActivations(transport: Transport, path: string, options: LayersOptions): Promise<Activations> {
  const { signal, ...query } = options;
  const response = await transport.send(path, { query: { ...tensorQuery(query), format: "raw" }, signal });
  return activations(await readRaw(response, transport.baseUrl));
}

/** Stacked layers or caches: their numbers and ids are only in safetensors. */
export async function fetchStack(transport: Transport, path: string, options: LayersOptions): Promise<Activations> {
  const { signal, ...query } = options;
  const response = await transport.send(path, { query: { ...tensorQuery(query), format: "safetensors" }, signal });
  return stackOf(await readFile(response, transport.baseUrl), infoOf(response.headers));
}

/** The tensor of a file with one, and what its metadata say. */
function stackOf({ tensors, metadata }: Safetensors, info: TensorInfo): Activations {
  const found = [...tensors].find(([name]) => name !== "offsets");
  if (!found) throw new FormatError("the answer has no tensor");
  const [hook, tensor] = found;
  const offsets = tensors.get("offsets")?.data;
  return activations(
    new Tensor(tensor.dtype, tensor.shape, tensor.bytes, {
      ...info,
      hook: info.hook ?? hook,
      axes: info.axes ?? metadata.axes?.split(","),
      ...(metadata.layers !== undefined && { layers: JSON.parse(metadata.layers) as number[] }),
      ...(metadata.caches !== undefined && { caches: JSON.parse(metadata.caches) as string[] }),
      ...(offsets && { offsets: Array.from(offsets, Number) }),
    }),
  );
}

/** The body of a safetensors answer. */
export async function readFile(response: Response, baseUrl: string): Promise<Safetensors> {
  return readSafetensors(await reading(response.arrayBuffer(), baseUrl));
}

/**
 * The tensor of an answer in the formats `raw`, `npy` or `safetensors` (with one tensor in it), with what its `Residuum-*`
 * headers say. On a page of another origin, the server must allow the page (`--cors-origin`) for them to be seen.
 */
export async function tensorOf(response: Response, baseUrl = response.url): Promise<Tensor<TensorData>> {
  const type = (response.headers.get("content-type") ?? "").split(";")[0]?.trim();
  if (type === "application/octet-stream") return await readRaw(response, baseUrl);
  if (type === "application/x-npy") return readNpy(await reading(response.arrayBuffer(), baseUrl), infoOf(response.headers));
  if (type !== "application/vnd.safetensors")
    throw new FormatError(`a tensor was expected, and ${type || "something without a media type"} came`);
  const { tensors } = await readFile(response, baseUrl);
  const [named] = [...tensors].filter(([name]) => name !== "offsets");
  if (!named) throw new FormatError("the answer has no tensor");
  const [hook, { dtype, shape, bytes }] = named;
  return new Tensor(dtype, shape, bytes, { hook, ...infoOf(response.headers) });
}

async function readRaw(response: Response, baseUrl: string): Promise<Tensor> {
  const { headers } = response;
  const dtype = headers.get("residuum-dtype");
  const shape = headers.get("residuum-shape");
  if (dtype === null || shape === null) {
    throw new FormatError("the answer lacks the headers Residuum-Dtype and Residuum-Shape; does a proxy remove them?");
  }
  const sizes = shape === "" ? [] : shape.split(",").map(Number);
  if (!isDtype(dtype)) throw new FormatError(`the type ${dtype} of the answer has no typed array here`);
  const bytes = new Uint8Array(await reading(response.arrayBuffer(), baseUrl));
  return new Tensor(dtype, sizes, bytes, infoOf(headers));
}

/** What the headers of an answer say about its tensor. */
function infoOf(headers: Headers): TensorInfo {
  const text = (name: string) => headers.get(name) ?? undefined;
  const info: TensorInfo = {
    hook: text("residuum-hook"),
    axes: text("residuum-axes")?.split(","),
    positions: text("residuum-positions"),
    convertedFrom: text("residuum-converted-from"),
  };
  return Object.fromEntries(Object.entries(info).filter(([, value]) => value !== undefined));
}

function tensorQuery({ positions, ...rest }: LayersOptions): Record<string, unknown> {
  return { ...rest, positions: Array.isArray(positions) ? positions.join(",") : positions };
}
