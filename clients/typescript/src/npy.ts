/** NumPy's file format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html */
import { countOf, ofNumpy, sizeOf } from "./dtype.js";
import { FormatError } from "./error.js";
import { bytesOf, Tensor, type TensorInfo } from "./tensor.js";

const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59];

/**
 * Reads a `.npy` file. The data are a view of the file's memory, unless they are big-endian or in Fortran order.
 *
 * Throws {@link FormatError} for what is not a whole `.npy` file, and for types without a typed array: complex numbers,
 * strings, dates, objects, records.
 */
export function readNpy(file: ArrayBuffer | ArrayBufferView, info: TensorInfo = {}): Tensor {
  const bytes = bytesOf(file);
  if (bytes.length < 10 || MAGIC.some((byte, i) => bytes[i] !== byte)) {
    throw new FormatError(`this is not a .npy file: it does not begin with NumPy's mark${found(bytes)}`);
  }
  const { header, begin } = headerOf(bytes);
  const { descr, fortran, shape } = parseHeader(header);
  const order = descr[0] as string;
  const dtype = ofNumpy(descr.slice(1));
  if (!dtype || !"<>|=".includes(order)) throw new FormatError(`the type ${descr} of a .npy file has no typed array here`);
  const n = countOf(shape);
  const size = sizeOf(dtype);
  const left = bytes.length - begin;
  if (left !== n * size) {
    const what = left < n * size ? "is cut off" : "has more bytes than it should";
    throw new FormatError(
      `this .npy file ${what}: shape [${shape.join(", ")}] of ${dtype} has ${n * size} bytes, and ${left} follow the header`,
    );
  }
  let data = bytes.subarray(begin);
  if (order === ">" && size > 1) data = swapped(data, size);
  if (fortran && shape.length > 1) data = rowMajor(data, shape, size);
  return new Tensor(dtype, shape, data, info);
}

function headerOf(bytes: Uint8Array): { header: string; begin: number } {
  const [major, view] = [bytes[6] as number, new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)];
  if (major < 1 || major > 3) throw new FormatError(`version ${major} of .npy is not known; 1 to 3 are`);
  if (major > 1 && bytes.length < 12) throw new FormatError("this .npy file is cut off in its header");
  const start = major === 1 ? 10 : 12;
  const length = major === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
  if (start + length > bytes.length) throw new FormatError(`this .npy file is cut off in its header, which has ${length} bytes`);
  const decoder = new TextDecoder(major === 3 ? "utf-8" : "latin1");
  return { header: decoder.decode(bytes.subarray(start, start + length)), begin: start + length };
}

/** The header is a Python dict with three keys, in any order. */
function parseHeader(header: string): { descr: string; fortran: boolean; shape: number[] } {
  const bad = (what: string) => new FormatError(`the header of this .npy file ${what}: ${header.trim().slice(0, 200)}`);
  if (!/^\{.*\}\s*$/s.test(header)) throw bad("is not a Python dict");
  if (/['"]descr['"]\s*:\s*\[/.test(header)) throw bad("describes records, which have no typed array");
  const descr = /['"]descr['"]\s*:\s*['"]([^'"]+)['"]/.exec(header)?.[1];
  const fortran = /['"]fortran_order['"]\s*:\s*(True|False)/.exec(header)?.[1];
  const shape = /['"]shape['"]\s*:\s*\(([\d\sL,]*)\)/.exec(header)?.[1];
  if (descr === undefined || fortran === undefined || shape === undefined) throw bad("lacks descr, fortran_order or shape");
  const sizes = shape.split(",").map((size) => size.trim().replace(/L$/, ""));
  if (sizes.at(-1) === "") sizes.pop();
  if (!sizes.every((size) => /^\d+$/.test(size))) throw bad("has a shape that is none");
  return { descr, fortran: fortran === "True", shape: sizes.map(Number) };
}

function swapped(data: Uint8Array, size: number): Uint8Array {
  const out = new Uint8Array(data.length);
  for (let i = 0; i < data.length; i += size) {
    for (let k = 0; k < size; k++) out[i + k] = data[i + size - 1 - k] as number;
  }
  return out;
}

/** Elements in Fortran order (the first axis varies fastest) in row-major order. */
function rowMajor(data: Uint8Array, shape: readonly number[], size: number): Uint8Array {
  const out = new Uint8Array(data.length);
  const strides: number[] = [];
  shape.reduce((stride, length) => (strides.push(stride), stride * length), size);
  const index = shape.map(() => 0);
  for (let to = 0; to < data.length; to += size) {
    const from = index.reduce((sum, i, axis) => sum + i * (strides[axis] as number), 0);
    for (let k = 0; k < size; k++) out[to + k] = data[from + k] as number;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      index[axis] = (index[axis] as number) + 1;
      if ((index[axis] as number) < (shape[axis] as number)) break;
      index[axis] = 0;
    }
  }
  return out;
}

/** Where somebody reads an error answer as a file, the text helps. */
export function found(bytes: Uint8Array): string {
  const start = bytes.subarray(0, 60);
  const printable = start.length > 0 && start.every((byte) => (byte >= 0x20 && byte < 0x7f) || byte === 0x0a || byte === 0x0d);
  return printable ? `, but with ${JSON.stringify(new TextDecoder().decode(start))}` : "";
}
