/**
 * What a key may do. No route tells the scope of a key, so one request is sent for each scope that changes nothing whatever the
 * answer is: the server checks the scope before it reads the body, and refuses the empty body afterwards.
 */

export type Scope = "read" | "write" | "metrics" | "admin";

export interface ScopeAnswer {
  scope: Scope;
  /** Undefined: the answer does not tell. */
  isAllowed: boolean | undefined;
  /** The code of the refusal, such as `scope_missing`. */
  code?: string | undefined;
}

export interface KeyAnswer {
  /** Whether the server refuses requests without a key. */
  isKeyWanted: boolean | undefined;
  scopes: readonly ScopeAnswer[];
}

const EMPTY = { method: "POST", body: "{}", headers: { "content-type": "application/json" } };
const PROBES: readonly { scope: Scope; path: string; init?: RequestInit }[] = [
  { scope: "read", path: "/v1/models" },
  { scope: "write", path: "/v1/runs?dry_run=true", init: EMPTY },
  { scope: "metrics", path: "/metrics" },
  { scope: "admin", path: "/v1/models", init: EMPTY },
];

export const MEANING: Record<Scope, string> = {
  read: "read, and ask about what is stored",
  write: "capture, edit and delete",
  metrics: "see the size of the store and the queue",
  admin: "load and unload models and autoencoders",
};

/** Asks with this key; empty for none. Throws what `send` throws. */
export async function askScopes(key: string, send: typeof fetch = fetch, signal?: AbortSignal): Promise<KeyAnswer> {
  const ask = async (path: string, init: RequestInit, withKey: boolean) => {
    const headers = new Headers(init.headers);
    if (withKey && key) headers.set("authorization", `Bearer ${key}`);
    const response = await send(path, { ...init, headers, signal: signal ?? null });
    const text = await response.text();
    return { status: response.status, code: codeOf(text) };
  };
  const bare = await ask("/v1/models", {}, false);
  const isKeyWanted = bare.status === 401 ? true : bare.status < 400 ? false : undefined;
  const scopes: ScopeAnswer[] = [];
  for (const { scope, path, init } of PROBES) {
    const { status, code } = await ask(path, init ?? {}, true);
    const isRefused = status === 401 || (status === 403 && code === "scope_missing");
    scopes.push(isRefused ? { scope, isAllowed: false, code } : { scope, isAllowed: status < 500 ? true : undefined });
  }
  return { isKeyWanted, scopes };
}

function codeOf(text: string): string | undefined {
  try {
    const { code } = JSON.parse(text) as { code?: unknown };
    return typeof code === "string" ? code : undefined;
  } catch {
    return undefined;
  }
}
