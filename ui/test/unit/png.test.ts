import { deflateSync, inflateSync } from "node:zlib";
import { expect, test } from "vitest";
import { chunk, crc, decodePng, encodePalettePng, MARK, predicted } from "../screenshots/png";

/** Of the palette file: the pixels, by its own palette. */
function pixelsOf(file: Buffer): number[][] {
  const palette = file.subarray(file.indexOf("PLTE") + 4);
  const begin = file.indexOf("IDAT");
  const length = file.readUInt32BE(begin - 4);
  const rows = inflateSync(file.subarray(begin + 4, begin + 4 + length));
  return [...rows.subarray(1)].map((index) => [...palette.subarray(index * 3, index * 3 + 3)]);
}

test("an image of few colours is kept as it is", () => {
  const rgb = Uint8Array.of(255, 0, 0, 0, 255, 0, 255, 0, 0, 1, 2, 3);
  const file = encodePalettePng({ width: 4, height: 1, rgb });
  expect(pixelsOf(file)).toEqual([
    [255, 0, 0],
    [0, 255, 0],
    [255, 0, 0],
    [1, 2, 3],
  ]);
  expect(crc(Buffer.from("IEND"))).toBe(0xae426082);
});

test("of many colours each stays near", () => {
  const n = 4096;
  const rgb = Uint8Array.from({ length: n * 3 }, (_, i) => Math.floor((Math.floor(i / 3) / n) * 255));
  const pixels = pixelsOf(encodePalettePng({ width: n, height: 1, rgb }));
  for (const [i, pixel] of pixels.entries())
    expect(Math.abs((pixel[0] as number) - (rgb[i * 3] as number))).toBeLessThanOrEqual(2);
});

test("what is no PNG, or of another form, is refused", () => {
  expect(() => decodePng(Uint8Array.of(1, 2, 3))).toThrow("not a PNG");
  expect(() => decodePng(encodePalettePng({ width: 1, height: 1, rgb: Uint8Array.of(1, 2, 3) }))).toThrow("not understood");
});

test("every filter of rows is undone", () => {
  const [width, height] = [6, 5];
  const rgb = Uint8Array.from({ length: width * height * 3 }, (_, i) => (i * 89 + (i % 7) * 31) & 255);
  const at = (y: number, i: number) => (y < 0 || i < 0 ? 0 : (rgb[y * width * 3 + i] as number));
  const rows: number[] = [];
  for (let y = 0; y < height; y++) {
    rows.push(y);
    for (let i = 0; i < width * 3; i++) rows.push((at(y, i) - predicted(y, at(y, i - 3), at(y - 1, i), at(y - 1, i - 3))) & 255);
  }
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 2, 0, 0, 0], 8);
  const parts = [Buffer.from(MARK), chunk("IHDR", header), chunk("IDAT", deflateSync(Buffer.from(rows)))];
  expect(decodePng(Buffer.concat(parts))).toEqual({ width, height, rgb });
});
