/** Event streams of the routes as typed events, which go on after a lost connection where the server can repeat them. */
import { FormatError, ResiduumError, problemOf } from "./error.js";
import { EventParser, readEvents, type ServerSentEvent } from "./sse.js";
import { connectionError, sleep, type Transport } from "./transport.js";
import type {
  ChatChunk,
  ChatRequest,
  CompletionChunk,
  CompletionEvent,
  CompletionRequest,
  Model,
  Patching,
  PatchingProgress,
  PatchingRequest,
  RunSnapshot,
  Sae,
  TokenEvent,
} from "./types.js";

/** What can be set of every call. */
export interface CallOptions {
  /** Aborts the request, and ends streams and waiting: they throw the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** What happens to a run. */
export type RunEvent =
  /** The run as a whole: at once, after every change, and once more when it has ended. */
  | { type: "run"; data: RunSnapshot }
  /** A generated token. */
  | { type: "token"; data: TokenEvent }
  /** A continuation has ended. */
  | { type: "completion"; data: CompletionEvent }
  /** So many `token` and `completion` events were lost: the client was away for longer than the server keeps them. */
  | { type: "missed"; data: { count: number } };

/** What happens during a patching sweep. */
export type PatchingEvent = { type: "progress"; data: PatchingProgress } | { type: "result"; data: Patching };

/** Options for following something. */
export interface FollowOptions extends CallOptions {
  /** The id of the last event that is known already, of `token` and `completion` events. */
  lastEventId?: string;
}

interface Followed {
  path: string;
  lastEventId?: string | undefined;
  signal?: AbortSignal | undefined;
  /** Whether an event is the last of the stream. */
  isLast: (event: ServerSentEvent, data: unknown) => boolean;
  /** Whether the stream may end because what it follows is gone. */
  mayGo: boolean;
}

interface Parsed {
  event: ServerSentEvent;
  data: unknown;
}

/** Events from one connection after the other, until the last one. */
async function* follow(transport: Transport, followed: Followed): AsyncGenerator<Parsed, void, undefined> {
  const { path, signal, isLast, mayGo } = followed;
  const { limit, delay, maxDelay } = transport.retries;
  let parser = new EventParser(followed.lastEventId);
  for (let failures = 0, isFirst = true; ; isFirst = false) {
    const headers: Record<string, string> = { accept: "text/event-stream" };
    if (parser.lastEventId !== "") headers["last-event-id"] = parser.lastEventId;
    let lost: unknown = new Error("the event stream ended before what it follows");
    try {
      const response = await transport.send(path, { headers, signal });
      for await (const event of readEvents(response, parser)) {
        failures = 0;
        const data = parsed(event);
        yield { event, data };
        if (isLast(event, data)) return;
      }
    } catch (error) {
      signal?.throwIfAborted();
      if (mayGo && !isFirst && error instanceof ResiduumError && error.status === 404) return;
      if (!isBrokenOff(error)) throw error;
      lost = error;
    }
    failures += 1;
    if (failures > limit) throw connectionError(transport.baseUrl, lost);
    await sleep(Math.min(parser.retry ?? delay * 2 ** (failures - 1), maxDelay), signal);
    // The parser may hold half of an event.
    const retry = parser.retry;
    parser = new EventParser(parser.lastEventId);
    parser.retry = retry;
  }
}

/** Whether the connection broke off while the body was read. That there is no connection at all is a `ConnectionError`. */
function isBrokenOff(error: unknown): boolean {
  return error instanceof TypeError;
}

function parsed(event: ServerSentEvent): unknown {
  try {
    return JSON.parse(event.data);
  } catch (error) {
    throw new FormatError(`the data of a ${event.event} event are not JSON: ${event.data.slice(0, 100)}`, { cause: error });
  }
}

const FINAL = ["completed", "failed", "cancelled"];

/** Follows a run until it has ended. A token is reported once, also after a lost connection and a restarted server. */
export async function* followRun(
  transport: Transport,
  id: string,
  options: FollowOptions = {},
): AsyncGenerator<RunEvent, void, undefined> {
  const isLast = ({ event }: ServerSentEvent, data: unknown) => event === "run" && FINAL.includes((data as RunSnapshot).status);
  const path = `/v1/runs/${encodeURIComponent(id)}/events`;
  // The last position of each item; an item that has ended has no further one.
  const seen = new Map<number, number>();
  for await (const { event, data } of follow(transport, { path, ...options, isLast, mayGo: false })) {
    if (event.event === "run") yield { type: "run", data: data as RunSnapshot };
    if (event.event !== "token" && event.event !== "completion") continue;
    const missed = numbersBetween(event.previousId, event.id);
    if (missed > 0) yield { type: "missed", data: { count: missed } };
    const { item } = data as TokenEvent | CompletionEvent;
    const position = event.event === "token" ? (data as TokenEvent).position : Infinity;
    if (position <= (seen.get(item) ?? -1)) continue;
    seen.set(item, position);
    if (event.event === "token") yield { type: "token", data: data as TokenEvent };
    else yield { type: "completion", data: data as CompletionEvent };
  }
}

/**
 * How many events lie between two, by their ids: `<start of the server>-<number>`, counted from 1. None that is known, if the
 * server was started again between them.
 */
function numbersBetween(before: string, after: string): number {
  const [start, number] = splitId(after);
  const [startBefore, numberBefore] = splitId(before);
  return before === "" || start === startBefore ? number - numberBefore - 1 : 0;
}

function splitId(id: string): [start: string, number: number] {
  const at = id.lastIndexOf("-");
  return [id.slice(0, Math.max(at, 0)), Number(id.slice(at + 1))];
}

/** Follows a model or an autoencoder until it is ready, has failed, or is gone. */
export async function* followServing<T extends Model | Sae>(
  transport: Transport,
  path: string,
  options: CallOptions = {},
): AsyncGenerator<T, void, undefined> {
  const isLast = (_: ServerSentEvent, data: unknown) => ["ready", "failed"].includes((data as T).status);
  for await (const { data } of follow(transport, { path, signal: options.signal, isLast, mayGo: true })) yield data as T;
}

/** Runs a patching sweep, with its progress. A lost connection stops the sweep, so it is a `ConnectionError`. */
export async function* followPatching(
  transport: Transport,
  body: PatchingRequest,
  options: CallOptions = {},
): AsyncGenerator<PatchingEvent, void, undefined> {
  for await (const event of posted(transport, "/v1/experiments/patching", body, options.signal)) {
    const data = parsed(event);
    if (event.event === "progress") yield { type: "progress", data: data as PatchingProgress };
    else if (event.event === "result") return yield { type: "result", data: data as Patching };
    else if (event.event === "problem") throw new ResiduumError(problemOf(data, 500));
  }
  throw connectionError(transport.baseUrl, new Error("the event stream ended before the result"));
}

/** The chunks of a chat's answer. */
export function streamChat(
  transport: Transport,
  body: ChatRequest,
  options: CallOptions = {},
): AsyncGenerator<ChatChunk, void, undefined> {
  return chunks<ChatChunk>(transport, "/openai/v1/chat/completions", body, options.signal);
}

/** The chunks of completions. */
export function streamCompletion(
  transport: Transport,
  body: CompletionRequest,
  options: CallOptions = {},
): AsyncGenerator<CompletionChunk, void, undefined> {
  return chunks<CompletionChunk>(transport, "/openai/v1/completions", body, options.signal);
}

/** OpenAI's streams: unnamed events, an object with `error` for an error, and `[DONE]` at the end. */
async function* chunks<T>(
  transport: Transport,
  path: string,
  body: object,
  signal?: AbortSignal,
): AsyncGenerator<T, void, undefined> {
  for await (const event of posted(transport, path, { ...body, stream: true }, signal)) {
    if (event.data === "[DONE]") return;
    const data = parsed(event);
    if (typeof data === "object" && data !== null && "error" in data) throw new ResiduumError(problemOf(data, 500));
    yield data as T;
  }
  throw connectionError(transport.baseUrl, new Error("the stream ended before [DONE]"));
}

/** The events that answer a POST. */
async function* posted(
  transport: Transport,
  path: string,
  body: unknown,
  signal?: AbortSignal,
): AsyncGenerator<ServerSentEvent, void, undefined> {
  const headers = { accept: "text/event-stream", "content-type": "application/json" };
  const response = await transport.send(path, { method: "POST", headers, body: JSON.stringify(body), signal });
  try {
    yield* readEvents(response);
  } catch (error) {
    signal?.throwIfAborted();
    throw error instanceof TypeError ? connectionError(transport.baseUrl, error) : error;
  }
}
