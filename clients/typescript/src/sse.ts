/** Server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream */
import { FormatError } from "./error.js";

/** A server-sent event. */
export interface ServerSentEvent {
  /** Its name; `message` if it has none. */
  event: string;
  /** Its data; several lines are joined with line feeds. */
  data: string;
  /** The last id that the stream has named so far; empty if none. */
  id: string;
  /** That id before this event; an event without data, which is not reported, may have set it. */
  previousId: string;
}

/** Parses a stream that comes in pieces, which may end anywhere. */
export class EventParser {
  /** The last id that the stream has named, also by an event without data. */
  lastEventId: string;
  /** Milliseconds to wait before the next connection, if the stream has said so. */
  retry: number | undefined;
  #decoder = new TextDecoder();
  /** The pieces of a line whose end has not come. */
  #line: string[] = [];
  #endsWithCr = false;
  #event = "";
  #data: string[] = [];
  #id: string;

  constructor(lastEventId = "") {
    this.lastEventId = this.#id = lastEventId;
  }

  /** The events that are complete with these bytes. */
  push(bytes: Uint8Array): ServerSentEvent[] {
    const events: ServerSentEvent[] = [];
    const text = this.#decoder.decode(bytes, { stream: true });
    let begin = 0;
    for (let at = 0; at < text.length; at++) {
      const char = text.charCodeAt(at);
      if (char !== 10 && char !== 13) continue;
      // The second half of a line end whose first half was in the piece before, or just passed.
      const second = char === 10 && (at === 0 ? this.#endsWithCr : text.charCodeAt(at - 1) === 13);
      if (!second) {
        this.#line.push(text.slice(begin, at));
        const line = this.#line.join("");
        this.#line = [];
        const event = this.#take(line);
        if (event) events.push(event);
      }
      begin = at + 1;
    }
    if (begin < text.length) this.#line.push(text.slice(begin));
    if (text.length > 0) this.#endsWithCr = text.charCodeAt(text.length - 1) === 13;
    return events;
  }

  #take(line: string): ServerSentEvent | undefined {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value.startsWith(" ")) value = value.slice(1);
    // A line that begins with a colon is a comment: its field is empty.
    if (field === "event") this.#event = value;
    else if (field === "data") this.#data.push(value);
    else if (field === "id" && !value.includes("\0")) this.#id = value;
    else if (field === "retry" && /^\d+$/.test(value)) this.retry = Number(value);
    return undefined;
  }

  #dispatch(): ServerSentEvent | undefined {
    const previousId = this.lastEventId;
    this.lastEventId = this.#id;
    const [event, data] = [this.#event || "message", this.#data];
    this.#event = "";
    this.#data = [];
    return data.length > 0 ? { event, data: data.join("\n"), id: this.#id, previousId } : undefined;
  }
}

/**
 * The events of an answer. Ends with the stream; a last event without the empty line that ends it is dropped, since it may be
 * incomplete. Leaving the loop closes the connection.
 *
 * Throws {@link FormatError} if the answer is not an event stream, and what reading the body throws.
 */
export async function* readEvents(
  response: Response,
  parser = new EventParser(),
): AsyncGenerator<ServerSentEvent, void, undefined> {
  const type = response.headers.get("content-type") ?? "nothing";
  if (!/^text\/event-stream\b/i.test(type) || !response.body) {
    await response.body?.cancel();
    throw new FormatError(`an event stream was expected, and ${type} came`);
  }
  const reader = response.body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* parser.push(value);
    }
  } finally {
    // Closes the connection if the stream has not ended. It may have failed, which was reported.
    await reader.cancel().catch(() => undefined);
  }
}
