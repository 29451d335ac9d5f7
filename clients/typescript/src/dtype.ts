import { FormatError } from "./error.js";

/** Types of elements, as the server and numpy name them. */
export type Dtype =
  | "float64"
  | "float32"
  | "float16"
  | "bfloat16"
  | "int64"
  | "int32"
  | "int16"
  | "int8"
  | "uint64"
  | "uint32"
  | "uint16"
  | "uint8"
  | "bool";

/** The arrays that hold elements. `float16` and `bfloat16` are widened to `Float32Array`; `bool` is 0 and 1 in a `Uint8Array`. */
export type TensorData =
  | Float32Array
  | Float64Array
  | BigInt64Array
  | Int32Array
  | Int16Array
  | Int8Array
  | BigUint64Array
  | Uint32Array
  | Uint16Array
  | Uint8Array;

type Stored = new (buffer: ArrayBuffer, offset: number, length: number) => TensorData;

interface Kind {
  /** Bytes of an element. */
  size: number;
  /** The array over the bytes as they are; of the two halves, that of their bits. */
  array: Stored;
  /** As safetensors spells it. */
  safetensors: string;
  /** As numpy spells it, without the byte order; null where numpy has no such type. */
  numpy: string | null;
}

const KINDS: Record<Dtype, Kind> = {
  float64: { size: 8, array: Float64Array, safetensors: "F64", numpy: "f8" },
  float32: { size: 4, array: Float32Array, safetensors: "F32", numpy: "f4" },
  float16: { size: 2, array: Uint16Array, safetensors: "F16", numpy: "f2" },
  bfloat16: { size: 2, array: Uint16Array, safetensors: "BF16", numpy: null },
  int64: { size: 8, array: BigInt64Array, safetensors: "I64", numpy: "i8" },
  int32: { size: 4, array: Int32Array, safetensors: "I32", numpy: "i4" },
  int16: { size: 2, array: Int16Array, safetensors: "I16", numpy: "i2" },
  int8: { size: 1, array: Int8Array, safetensors: "I8", numpy: "i1" },
  uint64: { size: 8, array: BigUint64Array, safetensors: "U64", numpy: "u8" },
  uint32: { size: 4, array: Uint32Array, safetensors: "U32", numpy: "u4" },
  uint16: { size: 2, array: Uint16Array, safetensors: "U16", numpy: "u2" },
  uint8: { size: 1, array: Uint8Array, safetensors: "U8", numpy: "u1" },
  bool: { size: 1, array: Uint8Array, safetensors: "BOOL", numpy: "b1" },
};

const DTYPES = Object.keys(KINDS) as Dtype[];

/** Bytes of an element. */
export function sizeOf(dtype: Dtype): number {
  return KINDS[dtype].size;
}

/** The name in a safetensors header. */
export function safetensorsName(dtype: Dtype): string {
  return KINDS[dtype].safetensors;
}

/** The type that a safetensors header names; undefined if it is none of ours. */
export function ofSafetensors(name: string): Dtype | undefined {
  return DTYPES.find((dtype) => KINDS[dtype].safetensors === name);
}

/** The type that numpy's `descr` names without its byte order, such as `f4`; undefined if it is none of ours. */
export function ofNumpy(name: string): Dtype | undefined {
  return DTYPES.find((dtype) => KINDS[dtype].numpy === name);
}

/** Whether this is the name of a type. */
export function isDtype(name: string): name is Dtype {
  return (DTYPES as string[]).includes(name);
}

/** Number of elements of a shape. Throws {@link FormatError} if it is not a number of elements that there can be. */
export function countOf(shape: readonly number[]): number {
  let n = 1;
  for (const size of shape) {
    if (!Number.isSafeInteger(size) || size < 0)
      throw new FormatError(`the shape [${shape.join(", ")}] has an axis that is not a length`);
    n *= size;
  }
  if (!Number.isSafeInteger(n)) throw new FormatError(`the shape [${shape.join(", ")}] has more elements than a file can have`);
  return n;
}

const LITTLE_ENDIAN = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/**
 * The elements over their little-endian bytes. A view of the same memory, unless the bytes do not begin at a multiple of the
 * size of an element, or the memory is shared between threads: then a copy.
 */
export function storedArray(dtype: Dtype, bytes: Uint8Array): TensorData {
  if (!LITTLE_ENDIAN)
    throw new FormatError("this machine stores numbers with the most significant byte first; such machines are not supported");
  const { size, array } = KINDS[dtype];
  const { buffer, byteOffset } = bytes;
  if (buffer instanceof ArrayBuffer && byteOffset % size === 0) return new array(buffer, byteOffset, bytes.length / size);
  return new array(new Uint8Array(bytes).buffer, 0, bytes.length / size);
}

/** Widens bfloat16, bit for bit: it is the upper half of a float32. */
export function widenBfloat16(bits: Uint16Array): Float32Array<ArrayBuffer> {
  const wide = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) wide[i] = (bits[i] as number) << 16;
  return new Float32Array(wide.buffer);
}

/** The bits of a float32 for each float16; made when it is first needed. */
let halves: Uint32Array | undefined;

/** Widens float16 exactly, NaN with its payload. */
export function widenFloat16(bits: Uint16Array): Float32Array<ArrayBuffer> {
  halves ??= Uint32Array.from({ length: 1 << 16 }, (_, half) => float32BitsOfHalf(half));
  const wide = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) wide[i] = halves[bits[i] as number] as number;
  return new Float32Array(wide.buffer);
}

function float32BitsOfHalf(half: number): number {
  const sign = (half & 0x8000) << 16;
  const exponent = (half >> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 0x1f) return (sign | 0x7f800000 | (fraction << 13)) >>> 0;
  if (exponent !== 0) return (sign | ((exponent + 112) << 23) | (fraction << 13)) >>> 0;
  if (fraction === 0) return sign >>> 0;
  // A subnormal half is a normal float32: shift its highest bit to where the implicit one is.
  const shift = Math.clz32(fraction) - 21;
  return (sign | ((113 - shift) << 23) | ((fraction << (13 + shift)) & 0x7fffff)) >>> 0;
}
