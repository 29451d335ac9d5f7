import { countOf, type Dtype, sizeOf, storedArray, type TensorData, widenBfloat16, widenFloat16 } from "./dtype.js";
import { FormatError } from "./error.js";

/** Nested arrays, as `toNested` makes them. */
export type Nested = number | bigint | Nested[];

/** What an answer says about a tensor, besides its type, shape and values. */
export interface TensorInfo {
  /** Full name of the hook; the name without the layer for a stack of layers. */
  hook?: string | undefined;
  /** Names of the axes. */
  axes?: readonly string[] | undefined;
  /** The layers that are stacked along the first axis. */
  layers?: readonly number[] | undefined;
  /** The caches that are stacked or concatenated along the first axis. */
  caches?: readonly string[] | undefined;
  /** If rows are concatenated: index of the first row of each cache, and the total. */
  offsets?: readonly number[] | undefined;
  /** The positions, if the request did not give them by number, such as `1:4,6`. */
  positions?: string | undefined;
  /** The type that was asked for, where the format does not have it and the values were rounded to it and then widened. */
  convertedFrom?: string | undefined;
}

/** An array with a type and a shape, over the bytes that came from the server. */
export class Tensor<Data extends TensorData = TensorData> {
  /** Type of the elements as they were sent. */
  readonly dtype: Dtype;
  /** Sizes of the axes; empty for a single value. */
  readonly shape: readonly number[];
  /** The elements as they were sent, little-endian: a view. */
  readonly bytes: Uint8Array;
  /** What else is known. */
  readonly info: TensorInfo;
  #stored: TensorData | undefined;
  #data: Data | undefined;

  /** Throws {@link FormatError} if the number of bytes is not that of the shape. */
  constructor(dtype: Dtype, shape: readonly number[], bytes: Uint8Array, info: TensorInfo = {}) {
    const wanted = countOf(shape) * sizeOf(dtype);
    if (bytes.length !== wanted) {
      throw new FormatError(
        `a ${dtype} tensor of shape [${shape.join(", ")}] has ${wanted} bytes, and these are ${bytes.length}`,
      );
    }
    this.dtype = dtype;
    this.shape = shape;
    this.bytes = bytes;
    this.info = info;
  }

  /** Number of elements. */
  get size(): number {
    return this.bytes.length / sizeOf(this.dtype);
  }

  /**
   * The elements in row-major order. A view of the received bytes where they are aligned; float16 and bfloat16 are widened
   * when this is first read.
   */
  get data(): Data {
    this.#data ??= this.#read() as Data;
    return this.#data;
  }

  /** The bits of float16 and bfloat16 elements. Throws `TypeError` for other types. */
  get bits(): Uint16Array {
    if (!isHalf(this.dtype)) throw new TypeError(`a ${this.dtype} tensor has no 16-bit elements: read its data`);
    return this.#storedArray() as Uint16Array;
  }

  /** One element. Negative numbers count from the end of an axis. Throws `RangeError` for an index that there is not. */
  at(...index: number[]): Data[number] {
    if (index.length !== this.shape.length)
      throw new RangeError(`${this.#name()} takes ${this.shape.length} indices, not ${index.length}`);
    let offset = 0;
    this.shape.forEach((size, axis) => {
      offset = offset * size + this.#index(index[axis] as number, axis);
    });
    return this.data[offset] as Data[number];
  }

  /** Element `i` of the first axis as a tensor over the same memory. Negative numbers count from the end. */
  row(i: number): Tensor<Data> {
    if (this.shape.length === 0) throw new RangeError("a single value has no rows");
    const shape = this.shape.slice(1);
    const length = countOf(shape);
    const begin = this.#index(i, 0) * length;
    const size = sizeOf(this.dtype);
    const row = new Tensor<Data>(this.dtype, shape, this.bytes.subarray(begin * size, (begin + length) * size), {
      ...(this.info.hook !== undefined && { hook: this.info.hook }),
      ...(this.info.axes && { axes: this.info.axes.slice(1) }),
    });
    // What was widened, or copied to be aligned, is not widened or copied again.
    row.#stored = this.#stored?.subarray(begin, begin + length);
    row.#data = this.#data?.subarray(begin, begin + length) as Data | undefined;
    return row;
  }

  /** Every element of the first axis, as {@link Tensor.row}. */
  *rows(): Generator<Tensor<Data>, void, undefined> {
    for (let i = 0; i < (this.shape[0] ?? 0); i++) yield this.row(i);
  }

  /** Nested arrays, as numpy's `tolist`; a number for a single value. */
  toNested(): Nested {
    const nest = (begin: number, axis: number): Nested => {
      const size = this.shape[axis];
      if (size === undefined) return this.data[begin] as number | bigint;
      const step = countOf(this.shape.slice(axis + 1));
      return Array.from({ length: size }, (_, i) => nest(begin + i * step, axis + 1));
    };
    return nest(0, 0);
  }

  #read(): TensorData {
    const stored = this.#storedArray();
    if (this.dtype === "float16") return widenFloat16(stored as Uint16Array);
    if (this.dtype === "bfloat16") return widenBfloat16(stored as Uint16Array);
    return stored;
  }

  #storedArray(): TensorData {
    this.#stored ??= storedArray(this.dtype, this.bytes);
    return this.#stored;
  }

  #index(i: number, axis: number): number {
    const size = this.shape[axis] as number;
    const at = i < 0 ? i + size : i;
    if (!Number.isInteger(i) || at < 0 || at >= size)
      throw new RangeError(`index ${i} is outside axis ${axis} of ${this.#name()}`);
    return at;
  }

  #name(): string {
    return `a tensor of shape [${this.shape.join(", ")}]`;
  }
}

/** A tensor of activations: float32, or halves that are widened to it. */
export type Activations = Tensor<Float32Array>;

/** The same tensor, if its data are a `Float32Array`. Throws {@link FormatError} otherwise. */
export function activations(tensor: Tensor): Activations {
  if (tensor.dtype === "float32" || isHalf(tensor.dtype)) return tensor as Activations;
  throw new FormatError(`activations are float32, float16 or bfloat16, and this tensor is ${tensor.dtype}`);
}

function isHalf(dtype: Dtype): boolean {
  return dtype === "float16" || dtype === "bfloat16";
}

/** Bytes of a file, without copying them. */
export function bytesOf(file: ArrayBuffer | ArrayBufferView): Uint8Array {
  return ArrayBuffer.isView(file) ? new Uint8Array(file.buffer, file.byteOffset, file.byteLength) : new Uint8Array(file);
}
