import assert from "node:assert/strict";
import { test } from "node:test";

import { EventParser, FormatError, readEvents, type ServerSentEvent } from "../../src/index.js";

const encode = (text: string) => new TextEncoder().encode(text);

function parse(text: string, parser = new EventParser()): ServerSentEvent[] {
  return parser.push(encode(text));
}

/** Without ids, where they are not the point. */
const named = (events: ServerSentEvent[]) => events.map(({ event, data }) => [event, data]);

test("names, lines of data, comments and unknown fields", () => {
  const text = ': hello\n\nevent: run\ndata: {"a":1}\n\ndata:one\ndata:  two\ndata\n\nfoo: bar\nevent: nothing\n\ndata: x: y\n\n';
  assert.deepEqual(named(parse(text)), [
    ["run", '{"a":1}'],
    ["message", "one\n two\n"],
    ["message", "x: y"],
  ]);
});

test("the examples of the standard", () => {
  assert.deepEqual(named(parse("data: YHOO\ndata: +2\ndata: 10\n\n")), [["message", "YHOO\n+2\n10"]]);
  const ids = parse(": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n");
  assert.deepEqual(
    ids.map(({ data, id }) => [data, id]),
    [
      ["first event", "1"],
      ["second event", ""],
      [" third event", ""],
    ],
  );
  assert.deepEqual(named(parse("data\n\ndata\ndata\n\ndata:")), [
    ["message", ""],
    ["message", "\n"],
  ]);
});

test("ids, also of events without data, and the waiting time", () => {
  const parser = new EventParser("7");
  assert.deepEqual(
    parse("data: a\n\nid: 8\n: scored\n\nid: 9\ndata: b\n\nid: 1\0\ndata: c\n\nid: 12\nretry: 250\nretry: soon\n", parser),
    [
      { event: "message", data: "a", id: "7", previousId: "7" },
      { event: "message", data: "b", id: "9", previousId: "8" },
      { event: "message", data: "c", id: "9", previousId: "9" },
    ],
  );
  assert.equal(parser.lastEventId, "9", "the id of an event that is not complete does not count");
  assert.equal(parser.retry, 250);
});

test("a stream may be split anywhere, with every kind of line end", () => {
  const lines = [
    "\uFEFFevent: a",
    "data: 1 ü€😀",
    "data: 2",
    "",
    ": c",
    "id: 5",
    "data: \u2028x",
    "",
    "",
    "retry: 3",
    "data: z",
    "",
  ];
  for (const end of ["\n", "\r\n", "\r"]) {
    const bytes = encode(lines.map((line) => line + end).join(""));
    const whole = new EventParser().push(bytes);
    assert.deepEqual(named(whole), [
      ["a", "1 ü€😀\n2"],
      ["message", "\u2028x"],
      ["message", "z"],
    ]);
    for (let first = 0; first <= bytes.length; first++) {
      for (const second of [first, first + 1, first + 2, bytes.length]) {
        const parser = new EventParser();
        const pieces = [bytes.slice(0, first), bytes.slice(first, second), bytes.slice(second)];
        assert.deepEqual(
          pieces.flatMap((piece) => parser.push(piece)),
          whole,
          `split at ${first} and ${second}`,
        );
      }
    }
    const parser = new EventParser();
    assert.deepEqual(
      [...bytes].flatMap((byte) => parser.push(Uint8Array.of(byte))),
      whole,
      "byte by byte",
    );
  }
});

test("mixed line ends", () => {
  assert.deepEqual(named(parse("data: a\r\n\r\ndata: b\n\ndata: c\r\rdata: d\r\n\n")), [
    ["message", "a"],
    ["message", "b"],
    ["message", "c"],
    ["message", "d"],
  ]);
});

test("a long line in many pieces takes time that grows with its length only", () => {
  const parser = new EventParser();
  const piece = encode("x".repeat(1 << 16));
  parser.push(encode("data: "));
  for (let i = 0; i < 200; i++) assert.deepEqual(parser.push(piece), []);
  assert.equal(parse("\n\n", parser)[0]!.data.length, 200 << 16);
});

function answer(pieces: string[], type = "text/event-stream; charset=utf-8", onCancel = () => {}): Response {
  let at = 0;
  const body = new ReadableStream<Uint8Array>({
    pull: (controller) => (at < pieces.length ? controller.enqueue(encode(pieces[at++]!)) : controller.close()),
    cancel: onCancel,
  });
  return new Response(body, { headers: { "content-type": type } });
}

test("the last event is dropped unless it is complete", async () => {
  const events: string[] = [];
  for await (const { data } of readEvents(answer(["data: a\n\nda", "ta: b\n"]))) events.push(data);
  assert.deepEqual(events, ["a"]);
});

test("leaving the loop cancels the body", async () => {
  let isCancelled = false;
  for await (const event of readEvents(
    answer(["data: a\n\n", "data: b\n\n", "data: c\n\n"], undefined, () => (isCancelled = true)),
  )) {
    if (event.data === "a") break;
  }
  assert.ok(isCancelled);
});

test("an answer that is no event stream is refused", async () => {
  await assert.rejects(readEvents(answer(["{}"], "application/json")).next(), (error: Error) => {
    return error instanceof FormatError && /application\/json came/.test(error.message);
  });
});
