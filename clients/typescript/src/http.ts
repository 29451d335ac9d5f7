/** The typed requests of every route: openapi-fetch, with keys and retries, and with methods that throw. */
import createFetchClient, { type Client as FetchClient, type FetchOptions, type ParseAsResponse } from "openapi-fetch";
import type { HttpMethod, PathsWithMethod, RequiredKeysOf } from "openapi-typescript-helpers";

import { errorOf } from "./error.js";
import type { paths } from "./openapi.js";
import { connectionError, type Transport } from "./transport.js";

/** openapi-fetch's client: its methods return `{ data, error, response }` and do not throw for an error answer. */
export type HttpClient = FetchClient<paths, JsonMedia>;

/** The media types of answers and errors, unless `parseAs` asks for something else. */
type JsonMedia = "application/json" | "application/problem+json";

type SuccessStatus = 200 | 201 | 202 | 204;

/** The JSON of each success; undefined where there is none by design. Binary answers are left out: they need `parseAs`. */
type SuccessJson<Responses> = {
  [Status in keyof Responses & SuccessStatus]: Responses[Status] extends { content: infer Content }
    ? Content extends { "application/json": infer Value }
      ? Value
      : never
    : Status extends 204
      ? undefined
      : never;
}[keyof Responses & SuccessStatus];

/** What a route answers: its JSON, or what `parseAs` names. */
export type Data<Operation, Init = unknown> = Operation extends { responses: infer Responses }
  ? ParseAsResponse<SuccessJson<Responses>, Init>
  : never;

type ParseAs = "json" | "text" | "blob" | "arrayBuffer" | "stream";

/** A body that is not JSON: the bytes of a file, or a form. */
export type BinaryBody = Blob | ArrayBuffer | ArrayBufferView<ArrayBuffer> | FormData;

type ContentBody<Content> = {
  [Media in keyof Content]: Media extends "application/json" ? Content[Media] : BinaryBody;
}[keyof Content];

/** openapi-fetch's own type of a body accepts any value where every field is optional; this one does not. */
type BodyOption<Operation> = Operation extends { requestBody: { content: infer Content } }
  ? { body: ContentBody<Content> }
  : Operation extends { requestBody?: { content: infer Content } }
    ? { body?: ContentBody<Content> }
    : { body?: never };

/** What a request of a route takes: `params`, `body`, `signal`, `headers`, and how its answer is read. */
export type Init<Operation, Parse extends ParseAs = "json"> = Omit<FetchOptions<Operation>, "parseAs" | "body"> &
  BodyOption<Operation> & { parseAs?: Parse };

type Arguments<Given> = RequiredKeysOf<Given> extends never ? [init?: Given] : [init: Given];

/** Calls routes with one method. Returns the answer's data; throws `ResiduumError` for an error answer. */
export type Method<M extends HttpMethod> = <Path extends PathsWithMethod<paths, M>, Parse extends ParseAs = "json">(
  path: Path,
  ...init: Arguments<Init<paths[Path][M], Parse>>
) => Promise<Data<paths[Path][M], { parseAs: Parse }>>;

/** openapi-fetch over a transport. */
export function httpClient(transport: Transport): HttpClient {
  const bodySerializer = (body: unknown) => (isBinary(body) ? body : JSON.stringify(body));
  return createFetchClient<paths, JsonMedia>({
    baseUrl: transport.baseUrl,
    fetch: (request) => sendRequest(transport, request),
    bodySerializer,
  });
}

async function sendRequest(transport: Transport, request: Request): Promise<Response> {
  const { method, url, headers, signal, cache, credentials, keepalive, redirect, referrerPolicy } = request;
  // Read at once, so that it can be sent again. Firefox has no `request.body`, so its length says whether there is one.
  const bytes = await request.arrayBuffer();
  const body = bytes.byteLength > 0 ? bytes : null;
  return await transport.fetch(method, url, { headers, signal, cache, credentials, keepalive, redirect, referrerPolicy, body });
}

function isBinary(body: unknown): body is BinaryBody {
  return body instanceof Blob || body instanceof ArrayBuffer || ArrayBuffer.isView(body) || body instanceof FormData;
}

/** openapi-fetch calls every body JSON, unless told otherwise. */
function withMediaType(init: Given | undefined): Given | undefined {
  if (!isBinary(init?.body) || init.body instanceof FormData) return init;
  const headers = new Headers(init.headers);
  if (!headers.has("content-type")) headers.set("content-type", "application/octet-stream");
  return { ...init, headers };
}

type Given = { body?: unknown; headers?: HeadersInit };
type Called = { data?: unknown; error?: unknown; response: Response };
type Call = (path: string, init?: unknown) => Promise<Called>;

/** The methods that throw. */
export interface Methods {
  /** Reads. Throws `ResiduumError`, `ConnectionError`, or the reason of an aborted signal. */
  get: Method<"get">;
  /** Sends a body, or asks for something that takes one. Throws as `get`. */
  post: Method<"post">;
  /** Changes what can be edited. Throws as `get`. */
  patch: Method<"patch">;
  /** Deletes. Throws as `get`. */
  delete: Method<"delete">;
}

/** Methods that return the data, and throw for error answers. */
export function throwing(http: HttpClient, transport: Transport): Methods {
  const wrap = (method: string, call: Call) => async (path: string, init?: Given) => {
    let hasAnswered = false;
    const fetch = async (request: Request) => {
      const response = await sendRequest(transport, request);
      hasAnswered = true;
      return response;
    };
    try {
      const { data, error, response } = await call(path, { ...withMediaType(init), fetch });
      if (!response.ok) throw errorOf(response, error, method);
      return data;
    } catch (error) {
      // The body broke off.
      if (hasAnswered && error instanceof TypeError) throw connectionError(transport.baseUrl, error);
      throw error;
    }
  };
  return {
    get: wrap("GET", http.GET as Call) as Method<"get">,
    post: wrap("POST", http.POST as Call) as Method<"post">,
    patch: wrap("PATCH", http.PATCH as Call) as Method<"patch">,
    delete: wrap("DELETE", http.DELETE as Call) as Method<"delete">,
  };
}
