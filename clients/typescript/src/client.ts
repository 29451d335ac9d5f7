import {
  type CallOptions,
  followPatching,
  followRun,
  followServing,
  type FollowOptions,
  type PatchingEvent,
  type RunEvent,
  streamChat,
  streamCompletion,
} from "./events.js";
import { RunFailedError } from "./error.js";
import { fetchActivations, fetchStack, type LayersOptions, readFile, type TensorOptions } from "./fetch_tensor.js";
import { httpClient, type HttpClient, type Methods, throwing } from "./http.js";
import { allItems, type Page } from "./pages.js";
import type { Safetensors } from "./safetensors.js";
import type { Activations } from "./tensor.js";
import { type SendOptions, Transport, type TransportOptions } from "./transport.js";
import type {
  Cache,
  ChatChunk,
  ChatRequest,
  CompletionChunk,
  CompletionRequest,
  CreateRun,
  Direction,
  DryRun,
  Model,
  Patching,
  PatchingRequest,
  Query,
  Run,
  RunSnapshot,
  Sae,
} from "./types.js";

/** Options of {@link createClient}. */
export interface ClientOptions extends TransportOptions {
  /** Address of the server, such as `http://127.0.0.1:8080`. In a web page, the origin of the page if left out. */
  baseUrl?: string | undefined;
  /** An API key, or a function that returns it and is called before each request. */
  apiKey?: TransportOptions["apiKey"];
  /** Used instead of the global `fetch`. */
  fetch?: TransportOptions["fetch"];
  /** How often requests are tried again that the server had no room for, or that got no answer; 0 for never. Default 5. */
  retries?: TransportOptions["retries"];
}

/** Options for posting a run. */
export interface CreateRunOptions extends CallOptions {
  /** The server answers the same run to the same key and body. A random one if left out. */
  idempotencyKey?: string | undefined;
}

/** Options for waiting for a run. */
export interface WaitOptions extends CallOptions {
  /** Called with the run and its speed after every change. */
  onProgress?: ((run: RunSnapshot) => void) | undefined;
  /** Return a run that failed or was cancelled instead of throwing {@link RunFailedError}. */
  allowFailure?: boolean | undefined;
}

/** Filters of a list. `limit` is the size of a page. */
export type ListQuery<Id extends "listCaches" | "listRuns" | "listRunCaches" | "listDirections"> = Omit<Query<Id>, "cursor">;

const FINAL = ["completed", "failed", "cancelled"];
/** Seconds for which the server keeps a waiting request open: proxies often end one after a minute. */
const WAIT_SECONDS = 30;

/** A client of one server. */
export interface Client extends Methods {
  /** openapi-fetch's client, whose methods return `{ data, error, response }`: for headers, and where errors are not to be thrown. */
  readonly http: HttpClient;
  /** Sends a request to any path with the key and the retries. Throws `ResiduumError` unless the answer is 2xx. */
  request(path: string, options?: SendOptions): Promise<Response>;

  /**
   * Posts a run and waits for its end. Throws {@link RunFailedError} if it fails or is cancelled. A signal ends the waiting; the
   * run goes on.
   */
  run(body: CreateRun, options?: CreateRunOptions & WaitOptions): Promise<Run>;
  /** Waits for the end of a run. Throws {@link RunFailedError} if it failed or was cancelled. */
  waitForRun(id: string, options?: WaitOptions): Promise<Run>;
  /** The tokens, shapes and bytes that a run would store. Nothing is computed. */
  dryRun(body: CreateRun, options?: CallOptions): Promise<DryRun>;

  /** One hook of a cache by its full name, such as `blocks.12.attn.hook_pattern`. */
  tensor(cache: string, hook: string, options?: TensorOptions): Promise<Activations>;

  readonly runs: {
    /** Queues a run, or returns the one that was queued with the same idempotency key. */
    create(body: CreateRun, options?: CreateRunOptions): Promise<Run>;
    /** Every run, newest first. */
    all(query?: ListQuery<"listRuns">, options?: CallOptions): AsyncGenerator<Run, void, undefined>;
    /** Every cache of a run, in the order of its inputs. */
    caches(id: string, query?: ListQuery<"listRunCaches">, options?: CallOptions): AsyncGenerator<Cache, void, undefined>;
    /** Progress, generated tokens and the end of a run. Goes on after a lost connection. */
    follow(id: string, options?: FollowOptions): AsyncGenerator<RunEvent, void, undefined>;
    /** One hook of all caches: `[cache, …]`, or rows one after another with `info.offsets` if their numbers differ. */
    tensor(id: string, hook: string, options?: TensorOptions): Promise<Activations>;
  };
  readonly caches: {
    /** Every cache that matches, newest first. */
    all(query?: ListQuery<"listCaches">, options?: CallOptions): AsyncGenerator<Cache, void, undefined>;
    /** The residual stream, or another hook, of every captured layer: `[layer, …]`; `info.layers` names the layers. */
    layers(id: string, options?: LayersOptions): Promise<Activations>;
    /** The residual stream, or another hook, of one layer; -1 is the last. */
    layer(id: string, layer: number, options?: LayersOptions): Promise<Activations>;
    /** Every tensor of a cache by hook name, and `token_ids`. */
    load(id: string, options?: CallOptions): Promise<Safetensors>;
    /** Stores a safetensors file of activations made elsewhere. A `Blob` or `File` is not read into memory. */
    import(
      file: Blob | ArrayBuffer | Uint8Array<ArrayBuffer>,
      query?: Query<"importCache">,
      options?: CreateRunOptions,
    ): Promise<Cache>;
  };
  readonly models: {
    /** The model now, and after every change, until it is ready, has failed, or is gone. */
    follow(id: string, options?: CallOptions): AsyncGenerator<Model, void, undefined>;
  };
  readonly saes: {
    /** The autoencoder now, and after every change, until it is ready, has failed, or is gone. */
    follow(id: string, options?: CallOptions): AsyncGenerator<Sae, void, undefined>;
  };
  readonly directions: {
    /** Every direction, newest first, without vectors. */
    all(query?: ListQuery<"listDirections">, options?: CallOptions): AsyncGenerator<Direction, void, undefined>;
    /** Its vector at a layer. */
    vector(direction: string, query?: Query<"getDirectionVector">, options?: CallOptions): Promise<Activations>;
  };
  readonly patching: {
    /** Runs a sweep. It may take as long as it needs, since progress is sent meanwhile. */
    run(body: PatchingRequest, options?: CallOptions & { onProgress?: (done: number, total: number) => void }): Promise<Patching>;
    /** Runs a sweep; its progress, then its result. Leaving the loop stops it. */
    follow(body: PatchingRequest, options?: CallOptions): AsyncGenerator<PatchingEvent, void, undefined>;
  };
  readonly openai: {
    /** The chunks of a chat's answer, in OpenAI's shape. */
    streamChat(body: ChatRequest, options?: CallOptions): AsyncGenerator<ChatChunk, void, undefined>;
    /** The chunks of completions, in OpenAI's shape. */
    streamCompletion(body: CompletionRequest, options?: CallOptions): AsyncGenerator<CompletionChunk, void, undefined>;
  };
}

/**
 * A client of the server at `baseUrl`.
 *
 * Its methods throw `ResiduumError` for error answers, `ConnectionError` if no answer comes, and the reason of an aborted
 * `signal`. Answers 429 and 503 are tried again, as are reads and keyed requests whose connection was lost.
 */
export function createClient(options: ClientOptions = {}): Client {
  const transport = new Transport(options);
  const http = httpClient(transport);
  const list = <Item>(path: string, query: object | undefined, { signal }: CallOptions) =>
    allItems<Item>((cursor) => transport.json<Page<Item>>(path, { query: { ...query, cursor }, signal }));
  return {
    http,
    ...throwing(http, transport),
    request: (path, given) => transport.send(path, given),
    ...runMethods(transport),
    tensor: (cache, hook, given = {}) =>
      fetchActivations(transport, `${cachePath(cache)}/tensors/${encodeURIComponent(hook)}`, given),
    runs: {
      create: (body, given = {}) => createRun(transport, body, given),
      all: (query, given = {}) => list("/v1/runs", query, given),
      caches: (id, query, given = {}) => list(`${runPath(id)}/caches`, query, given),
      follow: (id, given) => followRun(transport, id, given),
      tensor: (id, hook, given = {}) => fetchStack(transport, `${runPath(id)}/tensors/${encodeURIComponent(hook)}`, given),
    },
    caches: {
      all: (query, given = {}) => list("/v1/caches", query, given),
      ...cacheMethods(transport),
    },
    models: { follow: (id, given) => followServing<Model>(transport, `/v1/models/${encodeURIComponent(id)}/events`, given) },
    saes: { follow: (id, given) => followServing<Sae>(transport, `/v1/saes/${encodeURIComponent(id)}/events`, given) },
    directions: {
      all: (query, given = {}) => list("/v1/directions", query, given),
      vector: (direction, query = {}, given = {}) =>
        fetchActivations(transport, `/v1/directions/${encodeURIComponent(direction)}/vector`, {
          ...query,
          ...given,
        } as LayersOptions),
    },
    patching: {
      run: (body, given = {}) => patched(transport, body, given),
      follow: (body, given) => followPatching(transport, body, given),
    },
    openai: {
      streamChat: (body, given) => streamChat(transport, body, given),
      streamCompletion: (body, given) => streamCompletion(transport, body, given),
    },
  };
}

const runPath = (id: string) => `/v1/runs/${encodeURIComponent(id)}`;
const cachePath = (id: string) => `/v1/caches/${encodeURIComponent(id)}`;

function createRun(transport: Transport, body: CreateRun, options: CreateRunOptions, wait?: number): Promise<Run> {
  const { idempotencyKey: key, signal } = options;
  return transport.json<Run>("/v1/runs", {
    method: "POST",
    json: body,
    headers: { "idempotency-key": key },
    query: { wait },
    signal,
  });
}

function runMethods(transport: Transport): Pick<Client, "run" | "waitForRun" | "dryRun"> {
  const waitFor = async (id: string, options: WaitOptions, first?: Run): Promise<Run> => {
    const { signal, onProgress, allowFailure } = options;
    let run = first;
    if (onProgress) {
      for await (const event of followRun(transport, id, { signal })) {
        if (event.type !== "run") continue;
        run = event.data;
        onProgress(event.data);
      }
    }
    while (!run || !FINAL.includes(run.status)) {
      run = await transport.json<Run>(runPath(id), { query: { wait: WAIT_SECONDS }, signal });
    }
    if (run.status === "completed" || allowFailure) return run;
    throw new RunFailedError(run);
  };
  return {
    run: async (body, options = {}) => {
      const run = await createRun(transport, body, options, options.onProgress ? undefined : WAIT_SECONDS);
      return await waitFor(run.id, options, run);
    },
    waitForRun: (id, options = {}) => waitFor(id, options),
    dryRun: (body, { signal } = {}) =>
      transport.json<DryRun>("/v1/runs", { method: "POST", json: body, query: { dry_run: true }, signal }),
  };
}

function cacheMethods(transport: Transport): Pick<Client["caches"], "layers" | "layer" | "load" | "import"> {
  return {
    layers: (id, options = {}) => fetchStack(transport, `${cachePath(id)}/layers`, options),
    layer: (id, layer, options = {}) => fetchActivations(transport, `${cachePath(id)}/layers/${layer}`, options),
    load: async (id, { signal } = {}) => {
      const response = await transport.send(`${cachePath(id)}/safetensors`, { signal });
      return await readFile(response, transport.baseUrl);
    },
    import: (file, query, { idempotencyKey: key, signal } = {}) => {
      const headers = { "content-type": "application/vnd.safetensors", "idempotency-key": key };
      return transport.json<Cache>("/v1/caches", { method: "POST", body: file, headers, query, signal });
    },
  };
}

async function patched(
  transport: Transport,
  body: PatchingRequest,
  options: CallOptions & { onProgress?: (done: number, total: number) => void },
): Promise<Patching> {
  for await (const { type, data } of followPatching(transport, body, options)) {
    if (type === "result") return data;
    options.onProgress?.(data.done, data.total);
  }
  throw new Error("the sweep ended without a result");
}
