import assert from "node:assert/strict";
import { test } from "node:test";

import { ConnectionError, createClient, ResiduumError } from "../../src/index.js";
import { hangUp, json, problem, scripted } from "./http_server.js";

/** Fast enough for tests. */
const retries = { limit: 3, delay: 1 };
const run = { object: "run", id: "r", status: "completed", caches: ["c"] };
const body = { model: "m", input: "text" };

test("a full queue is tried again with the same idempotency key, after the time that was asked for", async () => {
  const { url, received } = await scripted(
    problem(429, "queue_full", { "retry-after": "0" }),
    problem(503, "server_busy", { "retry-after": "1" }),
    json(202, run),
  );
  const began = performance.now();
  const created = await createClient({ baseUrl: url, retries }).runs.create(body);
  assert.equal(created.id, "r");
  assert.ok(performance.now() - began >= 990, "waited for the second that was asked for");
  assert.equal(received.length, 3);
  const keys = received.map(({ headers }) => headers["idempotency-key"]);
  assert.match(String(keys[0]), /^[0-9a-f]{32}$/);
  assert.deepEqual(new Set(keys).size, 1);
  assert.ok(received.every((one) => one.body === JSON.stringify(body)));
});

test("typed requests are tried again too, and their body is sent again", async () => {
  const { url, received } = await scripted(problem(503, "server_busy"), hangUp, json(202, run));
  await createClient({ baseUrl: url, retries }).post("/v1/runs", { body });
  assert.deepEqual(
    received.map((one) => one.body),
    Array(3).fill(JSON.stringify(body)),
  );
  assert.equal(new Set(received.map(({ headers }) => headers["idempotency-key"])).size, 1);
});

test("bodies are sent where Request has no property of that name, as in Firefox", async (context) => {
  context.mock.getter(Request.prototype, "body", () => undefined);
  const { url, received } = await scripted(json(200, {}));
  await createClient({ baseUrl: url }).post("/v1/tokenize", { body: { model: "m", text: "t" } });
  await createClient({ baseUrl: url }).delete("/v1/runs/{id}", { params: { path: { id: "r" } } });
  assert.deepEqual(
    received.map((one) => one.body),
    ['{"model":"m","text":"t"}', ""],
  );
});

test("each run has a key of its own; a given key is used", async () => {
  const { url, received } = await scripted(json(202, run));
  const client = createClient({ baseUrl: url });
  await client.runs.create(body);
  await client.runs.create(body);
  await client.runs.create(body, { idempotencyKey: "mine" });
  await client.post("/v1/runs", { body, params: { header: { "Idempotency-Key": "mine" } } });
  await client.post("/v1/tokenize", { body: { model: "m", text: "t" } });
  const keys = received.map(({ headers }) => headers["idempotency-key"]);
  assert.notEqual(keys[0], keys[1]);
  assert.deepEqual(keys.slice(2), ["mine", "mine", undefined]);
});

test("gives up after the limit, and reports what the server said last", async () => {
  const { url, received } = await scripted(problem(429, "queue_full", { "retry-after": "0", "x-request-id": "q-1" }));
  await assert.rejects(createClient({ baseUrl: url, retries }).get("/v1/runs"), (error: Error) => {
    assert.ok(error instanceof ResiduumError);
    assert.deepEqual([error.status, error.code, error.retryAfter, error.requestId], [429, "queue_full", 0, "q-1"]);
    assert.equal(error.message, "429 queue_full: what was wrong");
    return true;
  });
  assert.equal(received.length, 4);
});

test("a wait longer than allowed is reported at once; a date is understood", async () => {
  const later = new Date(Date.now() + 3_600_000).toUTCString();
  for (const value of ["3600", later]) {
    const { url, received } = await scripted(problem(503, "timed_out", { "retry-after": value }));
    await assert.rejects(createClient({ baseUrl: url, retries }).get("/v1/runs"), ResiduumError);
    assert.equal(received.length, 1);
  }
});

test("other errors are not tried again", async () => {
  for (const status of [400, 404, 409, 422, 500, 507]) {
    const { url, received } = await scripted(problem(status, "some_code"));
    await assert.rejects(createClient({ baseUrl: url, retries }).runs.create(body), { code: "some_code", status });
    assert.equal(received.length, 1);
  }
});

test("a lost connection is tried again only for what may be sent twice", async () => {
  const reads = await scripted(hangUp, hangUp, json(200, { items: [] }));
  await createClient({ baseUrl: reads.url, retries }).get("/v1/runs");
  assert.equal(reads.received.length, 3);
  const client = (url: string) => createClient({ baseUrl: url, retries });
  const tokens = await scripted(hangUp);
  await assert.rejects(client(tokens.url).post("/v1/tokenize", { body: { model: "m", text: "t" } }), ConnectionError);
  await assert.rejects(client(tokens.url).delete("/v1/runs/{id}", { params: { path: { id: "r" } } }), ConnectionError);
  assert.equal(tokens.received.length, 2);
});

test("no server", async () => {
  const { url, close } = await scripted(hangUp);
  close();
  const client = createClient({ baseUrl: url, retries: { limit: 1, delay: 1 } });
  for (const call of [
    () => client.get("/v1/runs"),
    () => client.tensor("c", "h"),
    () => client.runs.create(body),
    () => client.runs.follow("r").next(),
  ]) {
    await assert.rejects(
      call,
      (error: Error) => error instanceof ConnectionError && error.message.startsWith(`no answer from ${url}: `),
    );
  }
});

test("a signal ends a request, and the wait before the next one", async () => {
  const slow = await scripted(() => {});
  const client = createClient({ baseUrl: slow.url, retries });
  for (const call of [
    (signal: AbortSignal) => client.get("/v1/runs", { signal }),
    (signal: AbortSignal) => client.tensor("c", "h", { signal }),
    (signal: AbortSignal) => client.waitForRun("r", { signal }),
    (signal: AbortSignal) => client.runs.follow("r", { signal }).next(),
    (signal: AbortSignal) => client.runs.all({}, { signal }).next(),
    (signal: AbortSignal) => client.patching.run({} as never, { signal }),
    (signal: AbortSignal) => client.openai.streamChat({} as never, { signal }).next(),
  ]) {
    const controller = new AbortController();
    const called = call(controller.signal);
    setTimeout(() => controller.abort(), 20);
    await assert.rejects(called, { name: "AbortError" });
  }
  const busy = await scripted(problem(503, "server_busy", { "retry-after": "50" }));
  const began = performance.now();
  await assert.rejects(createClient({ baseUrl: busy.url }).get("/v1/runs", { signal: AbortSignal.timeout(50) }), {
    name: "TimeoutError",
  });
  assert.ok(performance.now() - began < 10_000);
  await assert.rejects(client.tensor("c", "h", { signal: AbortSignal.abort("no") }), (reason) => reason === "no");
});

test("the key is sent with every request, asked for each time, and never shown", async () => {
  const { url, received } = await scripted(json(200, { items: [] }));
  let n = 0;
  const client = createClient({ baseUrl: `${url}/`, apiKey: async () => `rsd_${n++}` });
  await client.get("/v1/runs");
  await client.runs.all().next();
  await client.http.GET("/v1/runs");
  assert.deepEqual(
    received.map(({ headers }) => headers.authorization),
    ["Bearer rsd_0", "Bearer rsd_1", "Bearer rsd_2"],
  );
  assert.deepEqual(
    received.map((one) => one.url),
    ["/v1/runs", "/v1/runs", "/v1/runs"],
  );
  await assert.rejects(createClient({ baseUrl: url, apiKey: "rsd_secret\n" }).get("/v1/runs"), (error: Error) => {
    return error.message.startsWith("apiKey has characters") && !error.message.includes("secret");
  });
});

test("addresses", () => {
  assert.throws(() => createClient(), /needs a baseUrl/);
  for (const baseUrl of ["localhost:8080", "ftp://a", "file:///x"])
    assert.throws(() => createClient({ baseUrl }), /is not an address/);
});

test("a server under a path, and names that need escaping", async () => {
  const { url, received } = await scripted(json(200, { items: [], next_cursor: null }));
  const client = createClient({ baseUrl: `${url}/residuum/` });
  await client.caches.all({ tag: ["a b", "c&d"], model: "m/1", text: undefined }).next();
  await client.get("/v1/models/{id}", { params: { path: { id: "a/b?" } } });
  await assert.rejects(client.tensor("c/d", "x?y"));
  assert.deepEqual(
    received.map((one) => one.url),
    [
      "/residuum/v1/caches?tag=a+b&tag=c%26d&model=m%2F1",
      "/residuum/v1/models/a%2Fb%3F",
      "/residuum/v1/caches/c%2Fd/tensors/x%3Fy?format=raw",
    ],
  );
});

test("errors of every shape", async () => {
  const errors = [
    json(404, { error: { message: "no such model", type: "not_found_error", param: "model", code: "model_not_found" } }),
    json(422, {
      status: 422,
      code: "invalid_value",
      title: "T",
      detail: "two fields",
      errors: [{ pointer: "/a", detail: "is negative" }, 7],
    }),
    (_: unknown, response: import("node:http").ServerResponse) => void response.writeHead(502).end("<html>Bad gateway</html>"),
    (_: unknown, response: import("node:http").ServerResponse) => void response.writeHead(500).end(),
  ];
  const found: unknown[] = [];
  for (const handler of errors) {
    const { url } = await scripted(handler);
    const error = await createClient({ baseUrl: url })
      .get("/v1/runs")
      .catch((e: unknown) => e as ResiduumError);
    assert.ok(error instanceof ResiduumError);
    assert.equal(error.method, "GET");
    assert.equal(error.url, `${url}/v1/runs`);
    found.push([error.message, error.errors]);
  }
  assert.deepEqual(found, [
    ["404 model_not_found: no such model (model)", [{ pointer: "model", detail: "no such model" }]],
    ["422 invalid_value: two fields (/a: is negative)", [{ pointer: "/a", detail: "is negative" }]],
    ["502 http_502: <html>Bad gateway</html>", []],
    ["500 http_500: the answer has no description", []],
  ]);
});

test("the http client returns errors and does not throw", async () => {
  const { url } = await scripted(problem(404, "run_not_found"));
  const { data, error, response } = await createClient({ baseUrl: url }).http.GET("/v1/runs/{id}", {
    params: { path: { id: "x" } },
  });
  assert.equal(data, undefined);
  assert.equal(error?.code, "run_not_found");
  assert.equal(response.status, 404);
});

test("a tensor whose connection breaks off is not a shorter tensor", async () => {
  const { url } = await scripted((_, response) => {
    response.writeHead(200, {
      "content-type": "application/octet-stream",
      "residuum-shape": "4",
      "residuum-dtype": "float32",
      "content-length": "16",
    });
    response.write(Buffer.alloc(8), () => response.socket?.destroy());
  });
  await assert.rejects(createClient({ baseUrl: url, retries: 0 }).tensor("c", "h"), ConnectionError);
});

test("an answer that breaks off is no answer", async () => {
  const { url } = await scripted((_, response) => {
    response.writeHead(200, { "content-type": "application/json", "content-length": "16" });
    response.write("{", () => response.socket?.destroy());
  });
  const client = createClient({ baseUrl: url, retries: 0 });
  await assert.rejects(client.get("/v1/runs"), ConnectionError);
  await assert.rejects(client.waitForRun("r"), ConnectionError);
});

test("headers of tensors that cannot be", async () => {
  for (const headers of [
    {},
    { "residuum-shape": "2" },
    { "residuum-shape": "x", "residuum-dtype": "float32" },
    { "residuum-shape": "3", "residuum-dtype": "float32" },
    { "residuum-shape": "1", "residuum-dtype": "float64" },
    { "residuum-shape": "2", "residuum-dtype": "nothing" },
  ]) {
    const { url } = await scripted((_, response) => void response.writeHead(200, headers).end(Buffer.alloc(8)));
    await assert.rejects(createClient({ baseUrl: url }).tensor("c", "h"), { name: "FormatError" });
  }
});
