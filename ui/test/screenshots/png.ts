/** PNG files with a palette: a third of the size of those that browsers write, and hardly different for pages of few colours. */
import { deflateSync, inflateSync } from "node:zlib";

export interface Image {
  width: number;
  height: number;
  /** Red, green and blue, row after row. */
  rgb: Uint8Array;
}

/** The first bytes of a PNG file. */
export const MARK = [137, 80, 78, 71, 13, 10, 26, 10];

/** Reads what Chromium writes: 8 bits, RGB or RGBA (the transparency is left out), not interlaced. */
export function decodePng(file: Uint8Array): Image {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (MARK.some((byte, i) => file[i] !== byte)) throw new Error("this is not a PNG file");
  const data: Uint8Array[] = [];
  let header: { width: number; height: number; channels: number } | undefined;
  for (let at = 8; at + 8 <= file.length; ) {
    const length = view.getUint32(at);
    const type = String.fromCharCode(...file.subarray(at + 4, at + 8));
    const body = at + 8;
    if (type === "IHDR") {
      const [depth, colour, interlaced] = [file[body + 8], file[body + 9], file[body + 12]];
      if (depth !== 8 || (colour !== 2 && colour !== 6) || interlaced !== 0)
        throw new Error("this form of PNG is not understood");
      header = { width: view.getUint32(body), height: view.getUint32(body + 4), channels: colour === 6 ? 4 : 3 };
    } else if (type === "IDAT") data.push(file.subarray(body, body + length));
    at = body + length + 4;
  }
  if (!header) throw new Error("this PNG file has no header");
  return unfiltered(inflateSync(Buffer.concat(data)), header);
}

/** Undoes the filter of each row (PNG specification, section 9). */
function unfiltered(bytes: Uint8Array, { width, height, channels }: { width: number; height: number; channels: number }): Image {
  const stride = width * channels;
  const rgb = new Uint8Array(width * height * 3);
  let above = new Uint8Array(stride);
  for (let y = 0; y < height; y++) {
    const filter = bytes[y * (stride + 1)];
    const row = Uint8Array.from(bytes.subarray(y * (stride + 1) + 1, (y + 1) * (stride + 1)));
    for (let i = 0; i < stride; i++) {
      const left = i >= channels ? (row[i - channels] as number) : 0;
      const up = above[i] as number;
      const corner = i >= channels ? (above[i - channels] as number) : 0;
      row[i] = (row[i] as number) + predicted(filter as number, left, up, corner);
    }
    for (let x = 0; x < width; x++) for (let c = 0; c < 3; c++) rgb[(y * width + x) * 3 + c] = row[x * channels + c] as number;
    above = row;
  }
  return { width, height, rgb };
}

/** What a filter predicts from the bytes to the left, above, and above to the left. */
export function predicted(filter: number, left: number, up: number, corner: number): number {
  switch (filter) {
    case 1:
      return left;
    case 2:
      return up;
    case 3:
      return (left + up) >> 1;
    case 4: {
      const guess = left + up - corner;
      const [a, b, c] = [Math.abs(guess - left), Math.abs(guess - up), Math.abs(guess - corner)];
      return a <= b && a <= c ? left : b <= c ? up : corner;
    }
    default:
      return 0;
  }
}

/** A PNG file with at most 256 colours. */
export function encodePalettePng({ width, height, rgb }: Image): Buffer {
  const { palette, indexOf } = paletteOf(rgb);
  const rows = Buffer.alloc((width + 1) * height);
  for (let y = 0, at = 0; y < height; y++) {
    rows[at++] = 0;
    for (let x = 0; x < width; x++, at++) rows[at] = indexOf.get(packed(rgb, (y * width + x) * 3)) as number;
  }
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 3, 0, 0, 0], 8);
  const colours = Buffer.from(palette.flatMap((colour) => [colour >> 16, (colour >> 8) & 255, colour & 255]));
  const parts = [Buffer.from(MARK), chunk("IHDR", header), chunk("PLTE", colours)];
  return Buffer.concat([...parts, chunk("IDAT", deflateSync(rows, { level: 9, memLevel: 9 })), chunk("IEND", Buffer.alloc(0))]);
}

const packed = (rgb: Uint8Array, at: number) =>
  ((rgb[at] as number) << 16) | ((rgb[at + 1] as number) << 8) | (rgb[at + 2] as number);

interface Counted {
  colour: number;
  count: number;
}

/** Colours of the palette, and for each colour of the image its place there. By median cut (Heckbert 1982). */
function paletteOf(rgb: Uint8Array): { palette: number[]; indexOf: Map<number, number> } {
  const counts = new Map<number, number>();
  for (let at = 0; at < rgb.length; at += 3) {
    const colour = packed(rgb, at);
    counts.set(colour, (counts.get(colour) ?? 0) + 1);
  }
  let boxes: Counted[][] = [[...counts].map(([colour, count]) => ({ colour, count }))];
  while (boxes.length < 256) {
    const widest = boxes.reduce((best, box) => (errorOf(box) > errorOf(best) ? box : best));
    if (widest.length < 2) break;
    boxes = [...boxes.filter((box) => box !== widest), ...halves(widest)];
  }
  const indexOf = new Map<number, number>();
  const palette = boxes.map((box, i) => {
    for (const { colour } of box) indexOf.set(colour, i);
    return meanOf(box);
  });
  return { palette, indexOf };
}

const channel = (colour: number, i: number) => (colour >> (16 - 8 * i)) & 255;
const errors = new WeakMap<Counted[], number>();

/** Squared error that the box would have as one colour; colours of large areas count little more than those of small ones. */
function errorOf(box: Counted[]): number {
  let error = errors.get(box);
  if (error === undefined) {
    error = Math.max(...[0, 1, 2].map((i) => spread(box, i)));
    errors.set(box, error);
  }
  return error;
}

function spread(box: readonly Counted[], i: number): number {
  let [weight, sum, squares] = [0, 0, 0];
  for (const { colour, count } of box) {
    const value = channel(colour, i);
    const part = Math.sqrt(count);
    weight += part;
    sum += part * value;
    squares += part * value * value;
  }
  return box.length < 2 ? 0 : squares - (sum * sum) / weight;
}

function halves(box: Counted[]): [Counted[], Counted[]] {
  const axis = [0, 1, 2].reduce((best, i) => (spread(box, i) > spread(box, best) ? i : best));
  const sorted = [...box].sort((a, b) => channel(a.colour, axis) - channel(b.colour, axis));
  const whole = sorted.reduce((sum, { count }) => sum + Math.sqrt(count), 0);
  let [at, sum] = [0, 0];
  while (at < sorted.length - 1 && sum + Math.sqrt((sorted[at] as Counted).count) <= whole / 2) {
    sum += Math.sqrt((sorted[at] as Counted).count);
    at++;
  }
  const cut = Math.max(1, at);
  return [sorted.slice(0, cut), sorted.slice(cut)];
}

function meanOf(box: readonly Counted[]): number {
  const total = box.reduce((sum, { count }) => sum + count, 0);
  const mean = [0, 1, 2].map((i) =>
    Math.round(box.reduce((sum, { colour, count }) => sum + channel(colour, i) * count, 0) / total),
  );
  return ((mean[0] as number) << 16) | ((mean[1] as number) << 8) | (mean[2] as number);
}

/** A part of a PNG file, with its checksum. */
export function chunk(type: string, body: Buffer): Buffer {
  const out = Buffer.alloc(body.length + 12);
  out.writeUInt32BE(body.length, 0);
  out.write(type, 4, "latin1");
  body.copy(out, 8);
  out.writeUInt32BE(crc(out.subarray(4, body.length + 8)), body.length + 8);
  return out;
}

/** CRC-32 of the PNG specification, annex D. */
export function crc(bytes: Uint8Array): number {
  let value = 0xffffffff;
  for (const byte of bytes) {
    value ^= byte;
    for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  }
  return (value ^ 0xffffffff) >>> 0;
}
