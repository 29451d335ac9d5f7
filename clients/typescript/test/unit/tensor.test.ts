import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";

import { FormatError, Tensor } from "../../src/index.js";
import { fixtures, hex } from "./fixtures.js";

const six = () =>
  new Tensor("float32", [2, 3], new Uint8Array(Float32Array.of(0, 1, 2, 3, 4, 5).buffer), {
    axes: ["pos", "d_model"],
    hook: "h",
  });

test("every float16 is widened as numpy does", () => {
  const bits = Uint16Array.from({ length: 1 << 16 }, (_, i) => i);
  const { data } = new Tensor<Float32Array>("float16", [1 << 16], new Uint8Array(bits.buffer));
  const words = new Uint32Array(data.buffer);
  for (let half = 0; half < 1 << 16; half++) {
    const isNaN = (half & 0x7c00) === 0x7c00 && (half & 0x3ff) !== 0;
    if (!isNaN) continue;
    assert.equal(words[half], (((half & 0x8000) << 16) | 0x7f800000 | ((half & 0x3ff) << 13)) >>> 0);
    words[half] = 0;
  }
  assert.equal(createHash("sha256").update(words).digest("hex"), fixtures.float16_sha256);
});

test("every bfloat16 is the upper half of its float32", () => {
  const bits = Uint16Array.from({ length: 1 << 16 }, (_, i) => i);
  const tensor = new Tensor("bfloat16", [256, 256], new Uint8Array(bits.buffer));
  const words = new Uint32Array(tensor.data.buffer);
  assert.ok(words.every((word, i) => word === i * 65536));
  assert.equal(hex(tensor.bits), hex(bits));
});

test("elements and rows", () => {
  const tensor = six();
  assert.equal(tensor.size, 6);
  assert.equal(tensor.at(1, 2), 5);
  assert.equal(tensor.at(-1, -3), 3);
  assert.deepEqual(tensor.toNested(), [
    [0, 1, 2],
    [3, 4, 5],
  ]);
  assert.deepEqual([...tensor.row(-1).data], [3, 4, 5]);
  assert.deepEqual(tensor.row(1).info, { hook: "h", axes: ["d_model"] });
  assert.equal(tensor.row(0).data.buffer, tensor.data.buffer, "a view");
  assert.deepEqual(
    [...tensor.rows()].map((row) => row.at(0)),
    [0, 3],
  );
  assert.equal(tensor.row(1).row(0).toNested(), 3);
  assert.equal(tensor.row(1).row(0).at(), 3);
  for (const index of [[2, 0], [0], [0, 0, 0], [0, 3], [0, -4], [0.5, 0], [NaN, 0]]) {
    assert.throws(() => tensor.at(...index), RangeError, JSON.stringify(index));
  }
  assert.throws(() => tensor.row(2), RangeError);
  assert.throws(() => tensor.row(0).row(0).row(0), RangeError);
});

test("rows of halves, read before and after the whole", () => {
  const halves = new Tensor("float16", [2, 2], new Uint8Array(Uint16Array.of(0x3c00, 0x4000, 0x4200, 0x4400).buffer));
  assert.deepEqual([...halves.row(1).data], [3, 4]);
  assert.deepEqual([...halves.data], [1, 2, 3, 4]);
  const row = halves.row(1);
  assert.equal(row.data.buffer, halves.data.buffer, "widened once");
  assert.deepEqual([...row.bits], [0x4200, 0x4400]);
  assert.deepEqual([...row.data], [3, 4]);
});

test("bytes that do not match the shape are refused", () => {
  assert.throws(() => new Tensor("float32", [2], new Uint8Array(7)), /has 8 bytes, and these are 7/);
  for (const shape of [[-1], [1.5], [NaN], [2 ** 53, 2]]) {
    assert.throws(() => new Tensor("float32", shape, new Uint8Array(0)), FormatError);
  }
});

test("no elements", () => {
  const none = new Tensor("float32", [0, 3], new Uint8Array(0));
  assert.deepEqual(none.toNested(), []);
  assert.deepEqual([...none.rows()], []);
  assert.throws(() => none.row(0), RangeError);
});
