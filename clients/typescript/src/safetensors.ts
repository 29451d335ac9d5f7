/** The safetensors format: https://huggingface.co/docs/safetensors */
import { countOf, type Dtype, ofSafetensors, safetensorsName, sizeOf, type TensorData } from "./dtype.js";
import { FormatError } from "./error.js";
import { found } from "./npy.js";
import { bytesOf, Tensor } from "./tensor.js";

/** Longest header that is read, as in the reference implementation. */
const MAX_HEADER_BYTES = 100_000_000;

/** A safetensors file. */
export interface Safetensors {
  /** The tensors by name, in the order of the header. They share the memory of the file. */
  tensors: ReadonlyMap<string, Tensor>;
  /** The strings of `__metadata__`. */
  metadata: Readonly<Record<string, string>>;
}

interface Entry {
  name: string;
  dtype: Dtype;
  shape: number[];
  begin: number;
  end: number;
}

/**
 * Reads a safetensors file without copying its tensors.
 *
 * Throws {@link FormatError} for what is not a whole file: a header that is no JSON of the documented form, types that have
 * no typed array (`F8_E4M3` and others), data that do not match their type and shape, overlap, leave gaps, or are cut off.
 */
export function readSafetensors(file: ArrayBuffer | ArrayBufferView): Safetensors {
  const bytes = bytesOf(file);
  if (bytes.length < 8) throw new FormatError(`this is not a safetensors file: it has ${bytes.length} bytes${found(bytes)}`);
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true));
  if (length > MAX_HEADER_BYTES) {
    throw new FormatError(`this is not a safetensors file: its header would have ${length} bytes${found(bytes)}`);
  }
  if (8 + length > bytes.length) {
    throw new FormatError(`this safetensors file is cut off in its header, which has ${length} bytes${found(bytes)}`);
  }
  const header = parseHeader(bytes.subarray(8, 8 + length));
  const data = bytes.subarray(8 + length);
  const entries: Entry[] = [];
  let metadata: Record<string, string> = {};
  for (const [name, value] of Object.entries(header)) {
    if (name === "__metadata__") metadata = metadataOf(value);
    else entries.push(entryOf(name, value));
  }
  checkLayout(entries, data.length);
  const tensors = entries.map(({ name, dtype, shape, begin, end }): [string, Tensor] => {
    return [name, new Tensor(dtype, shape, data.subarray(begin, end))];
  });
  return { tensors: new Map(tensors), metadata };
}

function parseHeader(bytes: Uint8Array): Record<string, unknown> {
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw new FormatError("the header of this safetensors file is not JSON", { cause: error });
  }
  if (!isObject(header)) throw new FormatError("the header of this safetensors file is not a JSON object");
  return header;
}

function metadataOf(value: unknown): Record<string, string> {
  if (!isObject(value) || !Object.values(value).every((one) => typeof one === "string")) {
    throw new FormatError("__metadata__ of this safetensors file is not an object of strings");
  }
  return value as Record<string, string>;
}

function entryOf(name: string, value: unknown): Entry {
  const bad = (what: string) => new FormatError(`tensor ${JSON.stringify(name)} of this safetensors file ${what}`);
  if (!isObject(value)) throw bad("is not described by an object");
  const { dtype: spelled, shape, data_offsets: offsets } = value;
  if (typeof spelled !== "string" || !isLengths(shape) || !isLengths(offsets) || offsets.length !== 2) {
    throw bad("has no valid dtype, shape and data_offsets");
  }
  const dtype = ofSafetensors(spelled);
  if (!dtype) throw bad(`has the type ${spelled}, which has no typed array here`);
  const [begin, end] = offsets as [number, number];
  const wanted = countOf(shape) * sizeOf(dtype);
  if (end - begin !== wanted) throw bad(`has ${end - begin} bytes, and ${spelled} of shape [${shape.join(", ")}] has ${wanted}`);
  return { name, dtype, shape, begin, end };
}

/** The data must cover the rest of the file without gaps: then nothing is missing, and no name was given twice. */
function checkLayout(entries: readonly Entry[], length: number): void {
  let covered = 0;
  for (const { name, begin, end } of [...entries].sort((a, b) => a.begin - b.begin || a.end - b.end)) {
    if (begin !== covered) {
      throw new FormatError(
        `the data of tensor ${JSON.stringify(name)} of this safetensors file begin at ${begin}, and not at ${covered}`,
      );
    }
    covered = end;
  }
  if (covered > length)
    throw new FormatError(`this safetensors file is cut off: ${covered} bytes of data are described, and ${length} are there`);
  if (covered < length)
    throw new FormatError(`this safetensors file has ${length - covered} bytes that its header does not describe`);
}

/** A tensor to write: its type, shape and values. */
export interface TensorToWrite {
  shape: readonly number[];
  /** The values. */
  data: TensorData;
  /** Left out, it is that of the array. `float16`, `bfloat16`: `data` are their bits, a `Uint16Array`. `bool`: a `Uint8Array`. */
  dtype?: Dtype;
}

/**
 * Writes a safetensors file, such as `POST /v1/caches` takes. Wider elements come first, so that all are aligned.
 *
 * Throws {@link FormatError} if values do not match their type or shape.
 */
export function writeSafetensors(
  tensors: Record<string, TensorToWrite>,
  metadata: Record<string, string> = {},
): Uint8Array<ArrayBuffer> {
  const named = Object.entries(tensors).map(([name, { data, shape, dtype = dtypeOf(data) }]) => {
    if (name === "__metadata__") throw new FormatError("__metadata__ cannot be the name of a tensor");
    if (data.BYTES_PER_ELEMENT !== sizeOf(dtype))
      throw new FormatError(`${JSON.stringify(name)}: this array does not hold ${dtype}`);
    return { name, tensor: new Tensor(dtype, shape, bytesOf(data)) };
  });
  named.sort((a, b) => sizeOf(b.tensor.dtype) - sizeOf(a.tensor.dtype));
  const header: [string, unknown][] = Object.keys(metadata).length > 0 ? [["__metadata__", metadata]] : [];
  let length = 0;
  for (const { name, tensor } of named) {
    const offsets = [length, (length += tensor.bytes.length)];
    header.push([name, { dtype: safetensorsName(tensor.dtype), shape: tensor.shape, data_offsets: offsets }]);
  }
  const text = new TextEncoder().encode(JSON.stringify(Object.fromEntries(header)));
  const begin = 8 + Math.ceil(text.length / 8) * 8;
  const file = new Uint8Array(begin + length);
  new DataView(file.buffer).setBigUint64(0, BigInt(begin - 8), true);
  file.fill(0x20, 8, begin).set(text, 8);
  let at = begin;
  for (const { tensor } of named) {
    file.set(tensor.bytes, at);
    at += tensor.bytes.length;
  }
  return file;
}

function dtypeOf(data: TensorData): Dtype {
  if (data instanceof Float32Array) return "float32";
  if (data instanceof Float64Array) return "float64";
  if (data instanceof BigInt64Array) return "int64";
  if (data instanceof Int32Array) return "int32";
  if (data instanceof Int16Array) return "int16";
  if (data instanceof Int8Array) return "int8";
  if (data instanceof BigUint64Array) return "uint64";
  if (data instanceof Uint32Array) return "uint32";
  return data instanceof Uint16Array ? "uint16" : "uint8";
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isLengths(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((one) => Number.isSafeInteger(one) && (one as number) >= 0);
}
