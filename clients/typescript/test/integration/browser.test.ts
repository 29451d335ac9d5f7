/** The client in Chromium, on a page of another origin than the server, which has a key and allows this one. */
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { type BrowserContext, chromium, type Page } from "playwright-core";

import { hex, ROOT } from "../unit/fixtures.js";
import type * as BrowserPage from "./browser_page.js";
import { cuttingProxy, EIFFEL, MODEL, pages, TestServer } from "./harness.js";

declare const window: { page: typeof BrowserPage; cut: () => Promise<void> };

/** No bundler: an import map says where the one dependency is. */
const HTML = `<!doctype html><meta charset="utf-8">
<script type="importmap">{"imports": {"openapi-fetch": "/node_modules/openapi-fetch/dist/index.mjs"}}</script>
<script type="module">window.page = await import("/build/test/integration/browser_page.js");</script>`;

let site: Awaited<ReturnType<typeof pages>>;
let server: TestServer;
let context: BrowserContext;
let page: Page;
const profile = mkdtempSync(join(tmpdir(), "chromium-"));

before(async () => {
  site = await pages((path) => {
    if (path === "/") return { type: "text/html", body: HTML };
    const file = fileURLToPath(new URL(`.${path}`, ROOT));
    return /\.m?js$/.test(path) && existsSync(file) ? { type: "text/javascript", body: readFileSync(file) } : undefined;
  });
  server = await TestServer.start({ corsOrigins: [site.url] });
  context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  page = await open(site.url);
});

after(async () => {
  await context?.close();
  await server?.stop();
  site?.close();
  rmSync(profile, { recursive: true, force: true });
});

async function open(url: string): Promise<Page> {
  const opened = await context.newPage();
  opened.on("pageerror", (error) => console.error(error));
  await opened.goto(url);
  await opened.waitForFunction(() => window.page !== undefined);
  return opened;
}

test("every kind of answer is in the browser what it is in Node", async () => {
  const found = await page.evaluate(([url, key, model, input]) => window.page.use(url, key, model, input), [
    server.url,
    server.apiKey!,
    MODEL,
    EIFFEL,
  ] as const);
  const client = server.client();
  const [cache] = found.ids.slice(-1);
  const tensor = await client.tensor(cache!, "blocks.12.hook_resid_post");
  assert.equal(found.floats, hex(tensor.data));
  assert.equal(found.halves, hex((await client.tensor(cache!, "blocks.12.hook_resid_post", { dtype: "bfloat16" })).data));
  assert.equal(found.floats, hex(Float32Array.from((found.json as number[][]).flat())));
  assert.equal(found.imported, found.floats);
  assert.deepEqual(
    [found.shape, found.axes, found.layers],
    [
      [9, 576],
      ["pos", "d_model"],
      [0, 12],
    ],
  );
  const described = await client.get("/v1/caches/{id}", { params: { path: { id: cache! } } });
  assert.deepEqual(found.tokenIds, described.token_ids.map(String));
  assert.ok(found.follow.length > 0);
  assert.equal(found.follow, found.completion);
  assert.equal(found.aborted, "AbortError");
  assert.ok(found.chat.length > 0);
  assert.deepEqual([found.code, found.pointer, found.requestIdIsVisible], ["layer_out_of_range", "/capture/layers", true]);
});

test("a stream that is cut goes on in the browser too", async () => {
  const client = server.client();
  const run = await client.runs.create({
    model: MODEL,
    input: "Once upon a time",
    generate: { max_new_tokens: 40 },
    capture: { hooks: [] },
  });
  const proxy = await cuttingProxy(server.url);
  after(proxy.close);
  await page.exposeFunction("cut", proxy.cut);
  const text = await page.evaluate(([url, key, id]) => window.page.followCut(url, key, id, () => window.cut()), [
    proxy.url,
    server.apiKey!,
    run.id,
  ] as const);
  const cache = (await client.runs.caches(run.id).next()).value;
  assert.equal(text, cache?.completion?.text);
});

test("a page whose origin is not allowed gets a connection error", async () => {
  const other = await open(site.url.replace("127.0.0.1", "localhost"));
  const name = await other.evaluate(([url, key]) => window.page.refused(url, key), [server.url, server.apiKey!] as const);
  assert.equal(name, "ConnectionError");
});
