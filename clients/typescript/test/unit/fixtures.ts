import { readFileSync } from "node:fs";

/** What must be read from an array. */
export interface Expected {
  dtype: string;
  shape: number[];
  /** The elements, little-endian and row-major, as hexadecimal digits. */
  bytes: string;
  /** The bytes of the float32 values of halves. */
  widened?: string;
}

/** Made by `test/fixtures/make_fixtures.py`. */
export interface Fixtures {
  npy: Record<string, Expected & { file: string }>;
  refused_npy: Record<string, string>;
  safetensors: { file: string; tensors: Record<string, Expected>; metadata: Record<string, string> };
  float16_sha256: string;
}

/** The package's folder. */
export const ROOT = new URL("../../../", import.meta.url);

export const fixtures = JSON.parse(readFileSync(new URL("test/fixtures/files.json", ROOT), "utf8")) as Fixtures;

/** Bytes of a base64 string, in memory of their own. */
export function decoded(base64: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(Buffer.from(base64, "base64"));
}

/** The bytes of a typed array as hexadecimal digits. */
export function hex(array: ArrayBufferView): string {
  return Buffer.from(array.buffer, array.byteOffset, array.byteLength).toString("hex");
}
