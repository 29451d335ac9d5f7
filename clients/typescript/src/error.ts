import type { Problem, Run } from "./types.js";

/** The codes of the specification, and any other that a newer server or a proxy may send. */
export type ErrorCode = Problem["code"] | (string & {});

/** A field at fault. */
export interface FieldError {
  /** JSON pointer into the body, such as `/input/37`, or the name of a query parameter. */
  pointer: string;
  /** What is wrong with it and what would be right. */
  detail: string;
}

/** What an error answer says. */
export interface ProblemFields {
  status: number;
  code: string;
  title?: string | undefined;
  detail: string;
  errors?: FieldError[] | undefined;
}

/** Where an error came from. */
export interface ErrorContext {
  method?: string | undefined;
  url?: string | undefined;
  headers?: Headers | undefined;
}

/** Every error that the server reported: an answer that is not 2xx, or an error within a stream. */
export class ResiduumError extends Error {
  override readonly name: string = "ResiduumError";
  /** The HTTP status; of an error within a stream, the one that it would have had. */
  readonly status: number;
  /** Stable name for programs, such as `layer_out_of_range`. `http_404` and the like if something else than Residuum answered. */
  readonly code: ErrorCode;
  /** The same for every error of this code. */
  readonly title: string | undefined;
  /** What was wrong and what would be right. */
  readonly detail: string;
  /** The fields at fault; empty if no field is. */
  readonly errors: readonly FieldError[];
  /** Seconds after which the server suggests to try again. */
  readonly retryAfter: number | undefined;
  /** The id under which the server logged the request. */
  readonly requestId: string | undefined;
  /** Method and address of the request. */
  readonly method: string | undefined;
  readonly url: string | undefined;

  constructor(problem: ProblemFields, context: ErrorContext = {}) {
    const named = (error: FieldError) =>
      problem.detail.includes(error.detail) ? error.pointer : `${error.pointer}: ${error.detail}`;
    const fields = (problem.errors ?? []).map(named).join("; ");
    super(`${problem.status} ${problem.code}: ${problem.detail}${fields && ` (${fields})`}`);
    this.status = problem.status;
    this.code = problem.code;
    this.title = problem.title;
    this.detail = problem.detail;
    this.errors = problem.errors ?? [];
    this.retryAfter = retryAfterSeconds(context.headers);
    this.requestId = context.headers?.get("x-request-id") ?? undefined;
    this.method = context.method;
    this.url = context.url;
  }
}

/** No answer came, or it broke off: no server there, the connection was lost, or a browser refused it (CORS). */
export class ConnectionError extends Error {
  override readonly name: string = "ConnectionError";
}

/** A run failed, in part or as a whole, or was cancelled. */
export class RunFailedError extends Error {
  override readonly name: string = "RunFailedError";
  /** The run; `caches` and `error` say what there is and why. */
  readonly run: Run;

  constructor(run: Run) {
    const why = run.error ? `: ${run.error.code}: ${run.error.detail}` : "";
    super(
      `run ${run.id} ${run.status === "cancelled" ? "was cancelled" : "failed"} (${run.n_done} of ${run.n_items} inputs done)${why}`,
    );
    this.run = run;
  }
}

/** A file or an event that is not what it should be: damaged, cut off, or of another format. */
export class FormatError extends Error {
  override readonly name: string = "FormatError";
}

/**
 * The error that an answer stands for. `body` is the parsed JSON, or the text if it is none.
 *
 * Understands problem+json, OpenAI's shape, and anything a proxy may send.
 */
export function errorOf(response: Response, body: unknown, method?: string): ResiduumError {
  const context = { method, url: response.url || undefined, headers: response.headers };
  return new ResiduumError(problemOf(body, response.status), context);
}

/** Reads a problem from a body, whatever it is. */
export function problemOf(body: unknown, status: number): ProblemFields {
  if (isRecord(body)) {
    if (isRecord(body.error) && typeof body.error.message === "string") {
      const { code, type, message, param } = body.error;
      const errors = typeof param === "string" ? [{ pointer: param, detail: message }] : [];
      return { status, code: text(code) ?? text(type) ?? `http_${status}`, detail: message, errors };
    }
    if (typeof body.code === "string" && typeof body.detail === "string") {
      const errors = Array.isArray(body.errors) ? body.errors.filter(isFieldError) : [];
      const own = typeof body.status === "number" ? body.status : status;
      return { status: own, code: body.code, title: text(body.title), detail: body.detail, errors };
    }
  }
  const start = typeof body === "string" ? body.trim().slice(0, 200) : "";
  return { status, code: `http_${status}`, detail: start || "the answer has no description" };
}

/** Seconds of a `Retry-After` header, which is a number or a date. */
export function retryAfterSeconds(headers: Headers | undefined, now = Date.now()): number | undefined {
  const value = headers?.get("retry-after")?.trim();
  if (!value) return undefined;
  if (/^\d+(\.\d+)?$/.test(value)) return Number(value);
  const date = Date.parse(value);
  return Number.isNaN(date) ? undefined : Math.max(0, (date - now) / 1000);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isFieldError(value: unknown): value is FieldError {
  return isRecord(value) && typeof value.pointer === "string" && typeof value.detail === "string";
}

function text(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}
