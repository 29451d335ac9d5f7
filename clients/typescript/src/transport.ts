import { ConnectionError, errorOf, retryAfterSeconds } from "./error.js";

/** A key, or a function that is asked for it before each request. */
export type ApiKey = string | undefined | (() => string | undefined | Promise<string | undefined>);

/** The part of the standard `fetch` that is used. */
export type Fetch = (url: string, init?: RequestInit) => Promise<Response>;

/** How often and how patiently a request is tried again. */
export interface RetryOptions {
  /** Largest number of further tries; 0 for none. Default 5. */
  limit?: number;
  /** Milliseconds before the first further try; doubled for each one after. Default 500. */
  delay?: number;
  /** Longest wait in milliseconds, also where the server asks for more: then the error is reported at once. Default 60,000. */
  maxDelay?: number;
}

/** Options of the transport. */
export interface TransportOptions {
  baseUrl?: string | undefined;
  apiKey?: ApiKey;
  fetch?: Fetch | undefined;
  retries?: number | RetryOptions | undefined;
}

/** A request to a path. What is undefined in `query` and `headers`, or null in `query`, is left out. */
export interface SendOptions {
  method?: string;
  query?: Record<string, unknown> | undefined;
  headers?: Record<string, string | undefined> | undefined;
  body?: RequestInit["body"] | undefined;
  signal?: AbortSignal | undefined;
}

const DEFAULT_RETRIES: Required<RetryOptions> = { limit: 5, delay: 500, maxDelay: 60_000 };

/** Sends requests to one server: adds the key, tries again, and explains failures. */
export class Transport {
  readonly baseUrl: string;
  readonly retries: Required<RetryOptions>;
  readonly #apiKey: ApiKey;
  readonly #fetch: Fetch;

  constructor(options: TransportOptions) {
    this.baseUrl = baseUrlOf(options.baseUrl);
    this.#apiKey = options.apiKey;
    // Called without `this`, and looked up for each call, so that a page or a test may replace it.
    this.#fetch = options.fetch ?? ((url, init) => globalThis.fetch(url, init));
    const retries = typeof options.retries === "number" ? { limit: options.retries } : (options.retries ?? {});
    this.retries = { ...DEFAULT_RETRIES, ...retries };
  }

  /** Sends a request and returns an answer of any status. Throws {@link ConnectionError}, or the reason of `signal`. */
  async fetch(method: string, url: string, init: RequestInit): Promise<Response> {
    const headers = await this.#headers(method, url, init.headers);
    // Only what may be sent twice without harm: reads, and requests that the server recognises by their key.
    const repeatable = method === "GET" || method === "HEAD" || headers.has("idempotency-key");
    const signal = init.signal ?? undefined;
    for (let attempt = 0; ; attempt++) {
      const last = attempt >= this.retries.limit || init.body instanceof ReadableStream;
      let wait: number | undefined;
      try {
        const response = await this.#fetch(url, { ...init, method, headers });
        wait = response.status === 429 || response.status === 503 ? this.#wait(attempt, response.headers) : undefined;
        if (wait === undefined || last) return response;
        await response.body?.cancel();
      } catch (error) {
        signal?.throwIfAborted();
        if (error instanceof Error && error.name === "AbortError") throw error;
        if (last || !repeatable) throw connectionError(this.baseUrl, error);
        wait = this.#wait(attempt);
      }
      await sleep(wait ?? 0, signal);
    }
  }

  /** Sends a request of a helper and returns an answer of status 2xx. Throws `ResiduumError` for others. */
  async send(path: string, options: SendOptions = {}): Promise<Response> {
    const { method = "GET", query, headers, body, signal } = options;
    const given = Object.entries(headers ?? {}).filter((header): header is [string, string] => header[1] !== undefined);
    const init: RequestInit = { headers: given, body: body ?? null, signal: signal ?? null };
    const response = await this.fetch(method, this.baseUrl + path + queryString(query), init);
    if (response.ok) return response;
    throw errorOf(response, await bodyOf(response, this.baseUrl), method);
  }

  /** As {@link Transport.send}, and parses the answer. The caller names its type. */
  async json<T>(path: string, options: SendOptions & { json?: unknown } = {}): Promise<T> {
    const { json, ...rest } = options;
    const posted = json === undefined ? {} : { body: JSON.stringify(json) };
    const headers = json === undefined ? rest.headers : { "content-type": "application/json", ...rest.headers };
    const response = await this.send(path, { ...rest, ...posted, headers });
    return await reading<T>(response.json(), this.baseUrl);
  }

  /** Milliseconds before the next try; undefined if the server asks for a longer wait than is allowed. */
  #wait(attempt: number, headers?: Headers): number | undefined {
    const asked = (retryAfterSeconds(headers) ?? 0) * 1000;
    if (asked > this.retries.maxDelay) return undefined;
    // Between half and the whole: clients that were refused together do not come back together.
    const backoff = this.retries.delay * 2 ** attempt * (0.5 + Math.random() / 2);
    return Math.min(Math.max(asked, backoff), this.retries.maxDelay);
  }

  async #headers(method: string, url: string, init: HeadersInit | undefined): Promise<Headers> {
    const headers = new Headers(init);
    const key = typeof this.#apiKey === "function" ? await this.#apiKey() : this.#apiKey;
    if (key && !headers.has("authorization")) {
      // The error of `Headers` would show the key.
      if (!/^[\x21-\x7e]+$/.test(key)) throw new Error("apiKey has characters that no key has; is a line end at its end?");
      headers.set("authorization", `Bearer ${key}`);
    }
    const path = new URL(url, "http://localhost").pathname;
    if (method === "POST" && /\/v1\/(runs|caches)$/.test(path) && !headers.has("idempotency-key")) {
      headers.set("idempotency-key", idempotencyKey());
    }
    return headers;
  }
}

/** A random key, by which the server recognises a request that is sent twice. */
export function idempotencyKey(): string {
  // `crypto.randomUUID` is missing on pages that were not loaded over HTTPS.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Reads a body; a connection that breaks off meanwhile is a {@link ConnectionError}. */
export async function reading<T>(body: Promise<T>, baseUrl: string): Promise<T> {
  try {
    return await body;
  } catch (error) {
    // A SyntaxError is an answer that is no JSON.
    if (error instanceof TypeError) throw connectionError(baseUrl, error);
    throw error;
  }
}

/** Resolves after some milliseconds; rejects with the reason of the signal. */
export function sleep(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const stop = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** What went wrong between here and the server. */
export function connectionError(baseUrl: string, cause: unknown): ConnectionError {
  const inner = cause instanceof Error && cause.cause instanceof Error ? cause.cause : cause;
  const why = inner instanceof Error ? inner.message || inner.name : String(inner);
  return new ConnectionError(`no answer from ${baseUrl}: ${why}`, { cause });
}

/** `?a=1&b=2&b=3`; objects as `c[key]=value`, as the specification says of them. */
export function queryString(query: Record<string, unknown> | undefined): string {
  const pairs = new URLSearchParams();
  const add = (name: string, value: unknown): void => {
    if (value === undefined || value === null) return;
    if (Array.isArray(value)) value.forEach((one) => add(name, one));
    else if (typeof value === "object") Object.entries(value).forEach(([key, inner]) => add(`${name}[${key}]`, inner));
    else pairs.append(name, String(value));
  };
  Object.entries(query ?? {}).forEach(([name, value]) => add(name, value));
  const text = pairs.toString();
  return text ? `?${text}` : "";
}

async function bodyOf(response: Response, baseUrl: string): Promise<unknown> {
  const text = await reading(response.text(), baseUrl);
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}

function baseUrlOf(baseUrl: string | undefined): string {
  const page = (globalThis as { location?: { origin?: string } }).location?.origin;
  const url = (baseUrl ?? page)?.replace(/\/+$/, "");
  if (url === undefined || url === "null")
    throw new TypeError("createClient needs a baseUrl outside of a web page, such as http://127.0.0.1:8080");
  if (baseUrl !== undefined && baseUrl !== "" && !/^https?:\/\//.test(url)) {
    throw new TypeError(`baseUrl ${JSON.stringify(baseUrl)} is not an address such as http://127.0.0.1:8080`);
  }
  return url === "" && page !== undefined ? page : url;
}
