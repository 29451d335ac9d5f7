import { expect, test } from "vitest";
import { askScopes } from "../../src/pages/server/scopes";

/** A server with keys: each key has the scopes of its name. */
const server = (isOpen: boolean) => async (path: unknown, init?: RequestInit) => {
  const key = new Headers(init?.headers).get("authorization")?.replace("Bearer ", "");
  const problem = (status: number, code: string) => new Response(JSON.stringify({ code }), { status });
  const scope = path === "/metrics" ? "metrics" : init?.method !== "POST" ? "read" : path === "/v1/models" ? "admin" : "write";
  if (!isOpen && !key) return problem(401, "api_key_required");
  if (!isOpen && !key?.split("+").includes(scope)) return problem(403, "scope_missing");
  return init?.method === "POST" ? problem(400, "invalid_field") : new Response("{}");
};

test("what is refused for want of a scope is not allowed; an empty body that is refused is", async () => {
  const answer = await askScopes("read+write", server(false));
  expect(answer.isKeyWanted).toBe(true);
  expect(answer.scopes).toEqual([
    { scope: "read", isAllowed: true },
    { scope: "write", isAllowed: true },
    { scope: "metrics", isAllowed: false, code: "scope_missing" },
    { scope: "admin", isAllowed: false, code: "scope_missing" },
  ]);
});

test("a server without keys allows everything, and says so", async () => {
  const answer = await askScopes("", server(true));
  expect(answer.isKeyWanted).toBe(false);
  expect(answer.scopes.every(({ isAllowed }) => isAllowed)).toBe(true);
});

test("a server that fails tells nothing", async () => {
  const answer = await askScopes("", async () => new Response("", { status: 503 }));
  expect(answer.isKeyWanted).toBeUndefined();
  expect(answer.scopes.map(({ isAllowed }) => isAllowed)).toEqual([undefined, undefined, undefined, undefined]);
});

test("loading that is switched off is not a missing scope", async () => {
  const off = async (_: unknown, init?: RequestInit) =>
    init?.method === "POST" ? new Response('{"code":"loading_off"}', { status: 403 }) : new Response("{}");
  expect((await askScopes("", off)).scopes.at(-1)).toEqual({ scope: "admin", isAllowed: true });
});
