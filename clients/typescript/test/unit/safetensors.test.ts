import assert from "node:assert/strict";
import { test } from "node:test";

import { FormatError, readSafetensors, writeSafetensors } from "../../src/index.js";
import { decoded, fixtures, hex } from "./fixtures.js";

const { file: encoded, tensors: expected, metadata } = fixtures.safetensors;

/** A file with this header and so many bytes of data. */
function withHeader(header: unknown, n_bytes: number): Uint8Array {
  const text = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const file = Buffer.alloc(8 + text.length + n_bytes);
  file.writeBigUInt64LE(BigInt(text.length));
  text.copy(file, 8);
  return file;
}

test("reads every type of a file that safetensors wrote", () => {
  const file = decoded(encoded);
  const read = readSafetensors(file);
  assert.deepEqual({ ...read.metadata }, metadata);
  assert.deepEqual([...read.tensors.keys()].sort(), Object.keys(expected).sort());
  for (const [name, { dtype, shape, bytes, widened }] of Object.entries(expected)) {
    const tensor = read.tensors.get(name)!;
    assert.equal(tensor.dtype, dtype);
    assert.deepEqual(tensor.shape, shape);
    assert.equal(tensor.bytes.buffer, file.buffer, "no copy");
    assert.equal(hex(tensor.data), widened ?? bytes, name);
    if (widened) assert.equal(hex(tensor.bits), bytes, name);
    else if (dtype !== "float32") assert.throws(() => tensor.bits, TypeError);
  }
});

test("reads it at every alignment", () => {
  const file = decoded(encoded);
  for (let shift = 1; shift <= 8; shift++) {
    const shifted = new Uint8Array(file.length + shift);
    shifted.set(file, shift);
    const { tensors } = readSafetensors(shifted.subarray(shift));
    for (const [name, { bytes, widened }] of Object.entries(expected))
      assert.equal(hex(tensors.get(name)!.data), widened ?? bytes);
  }
});

test("every file that is cut off or too long is refused", () => {
  const file = decoded(encoded);
  for (let length = 0; length < file.length; length++) {
    assert.throws(
      () => readSafetensors(file.subarray(0, length)),
      (error: Error) => {
        return error instanceof FormatError && /is cut off|it has \d bytes/.test(error.message);
      },
      `${length} bytes`,
    );
  }
  assert.throws(() => readSafetensors(Buffer.concat([file, Buffer.alloc(1)])), /1 bytes that its header does not describe/);
});

test("what a header may not say", () => {
  const f32 = (shape: unknown, begin: unknown, end: unknown) => ({ dtype: "F32", shape, data_offsets: [begin, end] });
  const cases: [unknown, number, RegExp][] = [
    ["nothing", 0, /not JSON/],
    ["[]", 0, /not a JSON object/],
    [{ __metadata__: { a: 1 } }, 0, /object of strings/],
    [{ a: 3 }, 0, /"a" .* not described by an object/],
    [{ a: { dtype: "F32" } }, 0, /no valid dtype, shape and data_offsets/],
    [{ a: f32([1.5], 0, 6) }, 6, /no valid dtype, shape/],
    [{ a: f32([-1], 0, 4) }, 4, /no valid dtype, shape/],
    [{ a: f32([1], 4, 0) }, 4, /has -4 bytes/],
    [{ a: f32([2], 0, 4) }, 4, /has 4 bytes, and F32 of shape \[2\] has 8/],
    [{ a: { dtype: "F8_E4M3", shape: [1], data_offsets: [0, 1] } }, 1, /F8_E4M3, which has no typed array/],
    [{ a: f32([4294967296, 4294967296], 0, 4) }, 4, /more elements than a file can have/],
    [{ a: f32([1], 0, 4), b: f32([1], 2, 6) }, 6, /"b" .* begin at 2, and not at 4/],
    [{ a: f32([1], 0, 4), b: f32([1], 8, 12) }, 12, /"b" .* begin at 8, and not at 4/],
    [
      '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
      8,
      /begin at 4, and not at 0/,
    ],
  ];
  for (const [header, bytes, message] of cases) {
    const error = (() => {
      try {
        readSafetensors(withHeader(header, bytes));
      } catch (e) {
        return e;
      }
      return undefined;
    })();
    assert.ok(error instanceof FormatError, `${JSON.stringify(header)}: ${String(error)}`);
    assert.match(error.message, message);
  }
});

test("lengths that no file has", () => {
  for (const length of [2n ** 63n, 2n ** 64n - 1n, 100_000_001n, 1000n]) {
    const file = Buffer.alloc(16);
    file.writeBigUInt64LE(length);
    assert.throws(() => readSafetensors(file), FormatError);
  }
  assert.throws(() => readSafetensors(Buffer.from('{"code": "cache_not_found", "status": 404}')), /cache_not_found/);
});

test("a name cannot reach the prototype of objects", () => {
  const file = withHeader('{"__proto__":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', 1);
  assert.deepEqual([...readSafetensors(file).tensors.keys()], ["__proto__"]);
  assert.deepEqual(
    [...readSafetensors(writeSafetensors({ ["__proto__"]: { shape: [1], data: Uint8Array.of(7) } })).tensors.keys()],
    ["__proto__"],
  );
});

test("what is written is read, and aligned", () => {
  const file = writeSafetensors(
    {
      odd: { shape: [3], data: Uint8Array.of(1, 2, 3) },
      ids: { shape: [2], data: BigInt64Array.of(-1n, 2n ** 62n) },
      half: { shape: [1, 1], data: Uint16Array.of(0x3c00), dtype: "float16" },
      "blocks.0.hook_resid_post": { shape: [2, 2], data: Float32Array.of(1, NaN, -Infinity, 0.1) },
    },
    { model: "any" },
  );
  const { tensors, metadata: read } = readSafetensors(file);
  assert.deepEqual({ ...read }, { model: "any" });
  assert.deepEqual([...tensors.get("ids")!.data], [-1n, 2n ** 62n]);
  assert.deepEqual(tensors.get("half")!.toNested(), [[1]]);
  const floats = tensors.get("blocks.0.hook_resid_post")!;
  assert.equal(floats.data.buffer, file.buffer, "no copy");
  assert.deepEqual(floats.toNested(), [
    [1, NaN],
    [-Infinity, Math.fround(0.1)],
  ]);
  assert.throws(() => writeSafetensors({ a: { shape: [2], data: Float32Array.of(1) } }), FormatError);
  assert.throws(
    () => writeSafetensors({ a: { shape: [1], data: Float32Array.of(1), dtype: "float16" } }),
    /does not hold float16/,
  );
  assert.throws(() => writeSafetensors({ __metadata__: { shape: [0], data: new Float32Array(0) } }), FormatError);
});
