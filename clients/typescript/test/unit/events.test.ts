import assert from "node:assert/strict";
import { test } from "node:test";

import {
  ConnectionError,
  createClient,
  type PatchingRequest,
  ResiduumError,
  type RunEvent,
  RunFailedError,
} from "../../src/index.js";
import { hangUp, type Handler, json, problem, scripted } from "./http_server.js";

const retries = { limit: 3, delay: 1 };

const event = (name: string, data: unknown, id?: number | string) =>
  `event: ${name}\n${id === undefined ? "" : `id: ${id}\n`}data: ${JSON.stringify(data)}\n\n`;
const run = (status: string) => event("run", { object: "run", id: "r", status, caches: [] });
const token = (id: number | string, position: number, item = 0) => event("token", { item, position, text: `t${position}` }, id);
const completion = (id: number | string, item = 0) => event("completion", { item, text: "" }, id);

/** Sends these pieces, then ends as it should, or breaks off. */
function stream(pieces: string[], breaksOff = false): Handler {
  return (_, response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    for (const piece of pieces) response.write(piece);
    if (breaksOff) setTimeout(() => response.socket?.destroy(), 20);
    else response.end();
  };
}

/** Events in short: `run completed`, `token 3`, … */
function short({ type, data }: RunEvent): string {
  if (type === "run") return `run ${data.status}`;
  if (type === "token") return `token ${data.item}/${data.position}`;
  return type === "completion" ? `completion ${data.item}` : `missed ${data.count}`;
}

async function followed(url: string, options = {}): Promise<string[]> {
  const events: string[] = [];
  for await (const one of createClient({ baseUrl: url, retries, apiKey: "rsd_k" }).runs.follow("r", options))
    events.push(short(one));
  return events;
}

test("goes on after lost connections with the last id, and reports a token once", async () => {
  const { url, received } = await scripted(
    stream([run("running"), token("1a-1", 5), token("1a-2", 6), 'event: token\nid: 1a-3\ndata: {"it'], true),
    stream([run("running"), token("1a-2", 6), token("1a-3", 7)]),
    problem(503, "unavailable", { "retry-after": "0" }),
    stream([run("running"), token("1a-4", 8), completion("1a-5"), run("completed")]),
  );
  assert.deepEqual(await followed(url), [
    "run running",
    "token 0/5",
    "token 0/6",
    "run running",
    "token 0/7",
    "run running",
    "token 0/8",
    "completion 0",
    "run completed",
  ]);
  assert.deepEqual(
    received.map(({ headers }) => headers["last-event-id"]),
    [undefined, "1a-2", "1a-3", "1a-3"],
  );
  assert.ok(received.every(({ headers }) => headers.accept === "text/event-stream" && headers.authorization === "Bearer rsd_k"));
});

test("a restarted server sends everything again: what is known is not repeated", async () => {
  const { url } = await scripted(
    stream([run("running"), token("1a-1", 5), token("1a-2", 5, 1), token("1a-3", 6)], true),
    stream(
      [run("running"), token("2b-1", 5), token("2b-2", 6), token("2b-3", 7), token("2b-4", 5, 1), token("2b-5", 6, 1)],
      true,
    ),
    stream([completion("2b-6"), completion("2b-7", 1), run("completed")]),
  );
  assert.deepEqual(await followed(url), [
    "run running",
    "token 0/5",
    "token 1/5",
    "token 0/6",
    "run running",
    "token 0/7",
    "token 1/6",
    "completion 0",
    "completion 1",
    "run completed",
  ]);
});

test("lost events are counted; ids of comments are not lost, and those of another start of the server do not count", async () => {
  const { url } = await scripted(
    stream([
      run("running"),
      token("1a-11", 5),
      "id: 1a-12\n: scored\n\n",
      token("1a-13", 6),
      token("1a-20", 9),
      token("2b-30", 12),
      run("failed"),
    ]),
  );
  assert.deepEqual(await followed(url, { lastEventId: "1a-10" }), [
    "run running",
    "token 0/5",
    "token 0/6",
    "missed 6",
    "token 0/9",
    "token 0/12",
    "run failed",
  ]);
  const other = await scripted(stream([token("1a-3", 5), run("completed")]));
  assert.deepEqual(await followed(other.url), ["missed 2", "token 0/5", "run completed"]);
});

test("the waiting time that the stream asks for is kept", async () => {
  const { url } = await scripted(stream(["retry: 300\n\n", run("running")]), stream([run("completed")]));
  const began = performance.now();
  await followed(url);
  assert.ok(performance.now() - began >= 290);
});

test("gives up when connections end again and again without an event, and not while there are any", async () => {
  const nothing = await scripted(stream([": nothing\n\n"]));
  await assert.rejects(followed(nothing.url), ConnectionError);
  assert.equal(nothing.received.length, 4);
  const some = await scripted(...Array.from({ length: 10 }, () => stream([run("running")], true)), stream([run("completed")]));
  assert.equal((await followed(some.url)).length, 11);
});

test("errors of the server end it", async () => {
  const { url } = await scripted(stream([run("running")]), problem(404, "run_not_found"));
  await assert.rejects(followed(url), { code: "run_not_found" });
  const broken = await scripted(stream(["event: run\ndata: {\n\n"]));
  await assert.rejects(followed(broken.url), { name: "FormatError" });
  const none = await scripted(json(200, {}));
  await assert.rejects(followed(none.url), { name: "FormatError" });
});

test("a model is followed until it is ready, or gone", async () => {
  const model = (status: string) => event("model", { id: "m", status });
  const statuses = async (url: string) => {
    const found: string[] = [];
    for await (const { status } of createClient({ baseUrl: url, retries }).models.follow("m")) found.push(status);
    return found;
  };
  const loading = await scripted(stream([model("loading")], true), stream([model("loading"), model("ready")]));
  assert.deepEqual(await statuses(loading.url), ["loading", "loading", "ready"]);
  const gone = await scripted(stream([model("unloading")]), problem(404, "model_not_found"));
  assert.deepEqual(await statuses(gone.url), ["unloading"]);
  const never = await scripted(problem(404, "model_not_found"));
  await assert.rejects(statuses(never.url), { code: "model_not_found" });
});

test("a sweep reports its progress, its problem, and a lost connection", async () => {
  const sweep = {} as PatchingRequest;
  const progress = (done: number) => event("progress", { done, total: 3, queue_position: null });
  const good = await scripted(stream([progress(0), progress(2), event("result", { model: "m" })]));
  const seen: number[] = [];
  const result = await createClient({ baseUrl: good.url }).patching.run(sweep, { onProgress: (done) => seen.push(done) });
  assert.deepEqual([result.model, seen], ["m", [0, 2]]);
  const bad = await scripted(stream([event("problem", { status: 503, code: "timed_out", detail: "d" })]));
  await assert.rejects(createClient({ baseUrl: bad.url }).patching.run(sweep), (error: Error) => {
    return error instanceof ResiduumError && error.status === 503 && error.code === "timed_out";
  });
  for (const lost of [stream([progress(0)]), stream([progress(0)], true), hangUp]) {
    const { url, received } = await scripted(lost);
    await assert.rejects(createClient({ baseUrl: url, retries }).patching.run(sweep), ConnectionError);
    assert.equal(received.length, 1, "a sweep is not started twice");
  }
});

test("OpenAI's streams end with [DONE], or with an error", async () => {
  const chunk = (text: string) => `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content: text } }] })}\n\n`;
  const texts = async (url: string) => {
    let text = "";
    const chat = createClient({ baseUrl: url, retries }).openai.streamChat({ model: "m", messages: [] });
    for await (const { choices } of chat) text += choices[0]?.delta.content;
    return text;
  };
  const good = await scripted(stream([chunk("a"), chunk("b"), "data: [DONE]\n\n"]));
  assert.equal(await texts(good.url), "ab");
  assert.equal(JSON.parse(good.received[0]!.body).stream, true);
  const bad = await scripted(
    stream([
      chunk("a"),
      'data: {"error": {"message": "gone", "type": "server_error", "param": null, "code": "unavailable"}}\n\n',
    ]),
  );
  await assert.rejects(texts(bad.url), { name: "ResiduumError", code: "unavailable" });
  const cut = await scripted(stream([chunk("a")]));
  await assert.rejects(texts(cut.url), ConnectionError);
});

test("waiting ends with the run, and throws for a run that failed", async () => {
  const of = (status: string) => ({
    object: "run",
    id: "r",
    status,
    caches: [],
    n_done: 1,
    n_items: 2,
    error: status === "failed" ? { code: "worker_failed", detail: "why" } : null,
  });
  const { url, received } = await scripted(json(200, of("queued")), json(200, of("running")), json(200, of("completed")));
  const client = createClient({ baseUrl: url });
  assert.equal((await client.waitForRun("r")).status, "completed");
  assert.deepEqual(
    received.map((one) => one.url),
    Array(3).fill("/v1/runs/r?wait=30"),
  );
  const failing = createClient({ baseUrl: (await scripted(json(200, of("failed")))).url });
  await assert.rejects(failing.waitForRun("r"), (error: Error) => {
    assert.ok(error instanceof RunFailedError);
    assert.equal(error.message, "run r failed (1 of 2 inputs done): worker_failed: why");
    return error.run.id === "r";
  });
  assert.equal((await failing.waitForRun("r", { allowFailure: true })).status, "failed");
});

test("lists are fetched page by page, as far as they are read", async () => {
  const page = (ids: string[], cursor: string | null) => json(200, { items: ids.map((id) => ({ id })), next_cursor: cursor });
  const { url, received } = await scripted(page(["a", "b"], "c1"), page([], "c2"), page(["c"], "c3"), page(["d"], null));
  const client = createClient({ baseUrl: url });
  const ids: string[] = [];
  for await (const { id } of client.caches.all({ tag: ["x"], limit: 2 })) {
    ids.push(id);
    if (id === "c") break;
  }
  assert.deepEqual(ids, ["a", "b", "c"]);
  assert.deepEqual(
    received.map((one) => one.url),
    ["/v1/caches?tag=x&limit=2", "/v1/caches?tag=x&limit=2&cursor=c1", "/v1/caches?tag=x&limit=2&cursor=c2"],
  );
});
