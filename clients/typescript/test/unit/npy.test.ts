import assert from "node:assert/strict";
import { test } from "node:test";

import { FormatError, readNpy } from "../../src/index.js";
import { decoded, fixtures, hex } from "./fixtures.js";

for (const [name, { file, dtype, shape, bytes, widened }] of Object.entries(fixtures.npy)) {
  test(`reads numpy's file ${name}`, () => {
    const tensor = readNpy(decoded(file));
    assert.equal(tensor.dtype, dtype);
    assert.deepEqual(tensor.shape, shape);
    assert.equal(hex(tensor.bytes), bytes);
    assert.equal(hex(tensor.data), widened ?? bytes);
  });
}

test("uses the file's memory where it is aligned, and copies where it is not", () => {
  const file = decoded(fixtures.npy.f8!.file);
  const tensor = readNpy(file);
  assert.equal(tensor.data.buffer, file.buffer);
  const shifted = new Uint8Array(file.length + 3);
  shifted.set(file, 3);
  const copy = readNpy(shifted.subarray(3));
  assert.notEqual(copy.data.buffer, shifted.buffer);
  assert.equal(hex(copy.data), fixtures.npy.f8!.bytes);
});

test("every file that is cut off is refused", () => {
  for (const name of ["f4", "version_2", "single_value", "i8"]) {
    const file = decoded(fixtures.npy[name]!.file);
    for (let length = 0; length < file.length; length++) {
      assert.throws(() => readNpy(file.subarray(0, length)), FormatError, `${name} at ${length}`);
    }
    const longer = new Uint8Array(file.length + 1);
    longer.set(file);
    assert.throws(() => readNpy(longer), /more bytes than it should/);
  }
});

test("types without a typed array are refused by name", () => {
  const messages = Object.entries(fixtures.refused_npy).map(([name, file]) => {
    try {
      readNpy(decoded(file));
      return `${name} was read`;
    } catch (error) {
      assert.ok(error instanceof FormatError);
      return `${name}: ${error.message.slice(0, 70)}`;
    }
  });
  assert.deepEqual(messages, [
    "strings: the type <U3 of a .npy file has no typed array here",
    "complex: the type <c16 of a .npy file has no typed array here",
    "records: the header of this .npy file describes records, which have no typed ar",
    "dates: the type <M8[D] of a .npy file has no typed array here",
  ]);
});

test("a header of another form is refused", () => {
  const withHeader = (header: string) => {
    const file = new Uint8Array(10 + header.length);
    file.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, header.length & 255, header.length >> 8]);
    file.set(Buffer.from(header, "latin1"), 10);
    return file;
  };
  for (const header of [
    "",
    "nothing",
    "{}",
    "{'descr': '<f4', 'fortran_order': False}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
    "{'descr': '<f4', 'fortran_order': 3, 'shape': (1,)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1,,2)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (9007199254740993, 9007199254740993)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999,)}",
    "{'descr': '<f3', 'fortran_order': False, 'shape': (0,)}",
    "{'descr': 'f4', 'fortran_order': False, 'shape': (0,)}",
    "{'descr': '', 'fortran_order': False, 'shape': (0,)}",
  ]) {
    assert.throws(() => readNpy(withHeader(header)), FormatError, header);
  }
  const version9 = withHeader("{'descr': '<f4', 'fortran_order': False, 'shape': (0,)}");
  assert.deepEqual(readNpy(version9).shape, [0]);
  version9[6] = 9;
  assert.throws(() => readNpy(version9), /version 9/);
});

test("an error answer that is read as a file shows its text", () => {
  assert.throws(() => readNpy(Buffer.from('{"code": "cache_not_found"}')), /cache_not_found/);
});
