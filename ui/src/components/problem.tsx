/** What went wrong, and what is still missing, in words. */
import type { ComponentChildren } from "preact";
import { ConnectionError, FormatError, ResiduumError, RunFailedError } from "residuum";
import type { Resource } from "../server/resource";

/** An error as a title, a code for programs, and an explanation. */
export interface Explained {
  title: string;
  code?: string | undefined;
  detail: string;
  errors: readonly { pointer: string; detail: string }[];
  requestId?: string | undefined;
}

export function explain(error: unknown): Explained {
  if (error instanceof ResiduumError) {
    const { title, code, detail, errors, requestId } = error;
    return { title: title ?? "The server refused this", code, detail, errors, requestId };
  }
  if (error instanceof ConnectionError) {
    return { title: "The server does not answer", detail: "It is asked again every two seconds.", errors: [] };
  }
  if (error instanceof RunFailedError) {
    const { run } = error;
    const detail = run.error?.detail ?? `${run.n_done} of ${run.n_items} inputs were done.`;
    return {
      title: run.status === "cancelled" ? "The run was cancelled" : "The run failed",
      code: run.error?.code,
      detail,
      errors: [],
    };
  }
  if (error instanceof FormatError) return { title: "The answer could not be read", detail: error.message, errors: [] };
  return {
    title: "Something went wrong in this page",
    detail: error instanceof Error ? error.message : String(error),
    errors: [],
  };
}

export function ProblemNote({ error, onRetry }: { error: unknown; onRetry?: (() => void) | undefined }) {
  const { title, code, detail, errors, requestId } = explain(error);
  return (
    <div class="problem" role="alert">
      <strong>{title}</strong>
      {code && <code class="problem-code">{code}</code>}
      <p>{detail}</p>
      {errors.length > 0 && (
        <ul>
          {errors.map((one) => (
            <li key={one.pointer}>
              <code>{one.pointer}</code> {one.detail !== detail && one.detail}
            </li>
          ))}
        </ul>
      )}
      {requestId && <p class="soft">Request {requestId}</p>}
      {onRetry && (
        <button type="button" onClick={onRetry}>
          Try again
        </button>
      )}
    </div>
  );
}

/** A resource: a quiet line while it loads, its problem if it failed, and its value. */
export function Loaded<Value>(props: { of: Resource<Value>; children: (value: Value) => ComponentChildren; what?: string }) {
  const { of: resource, children, what = "" } = props;
  return (
    <>
      {resource.error !== undefined && <ProblemNote error={resource.error} onRetry={resource.reload} />}
      {resource.value !== undefined
        ? children(resource.value)
        : resource.isLoading && <p class="loading">Loading{what && ` ${what}`} …</p>}
    </>
  );
}

/** Nothing is here yet: says so, and what to do next. */
export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <strong>{title}</strong>
      {children && <p>{children}</p>}
    </div>
  );
}
