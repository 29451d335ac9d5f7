/** A server with API keys, and a server that goes away and comes back. */
import { execFileSync } from "node:child_process";
import { afterAll, beforeAll, expect, test } from "vitest";
import { axe, open } from "./harness";
import { freePort, MODELS, type Server, startPreview, startServer } from "./setup";

let server: Server;
let origin: string;
let key: string;
let reader: string;

function makeKey(binary: string, data: string, scope: string): string {
  const made = execFileSync(binary, ["keys", "create", "--data-dir", data, "--name", scope, "--scope", scope], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  return /rsd_\S+/.exec(made.toString())?.[0] ?? "";
}

beforeAll(async () => {
  server = await startServer(MODELS.slice(2), (binary, data) => {
    key = makeKey(binary, data, "admin");
    reader = makeKey(binary, data, "read");
  });
  const page = process.env.UI_PREVIEW ? await startPreview(server.url) : undefined;
  origin = page?.url ?? server.url;
});

afterAll(async () => {
  await server?.stop();
});

const REFUSED = /401|403/;

test("the page loads without a key, asks for one, and keeps it out of addresses and lasting storage", async () => {
  const page = await open("/caches", { origin, allow: REFUSED });
  const dialog = page.getByRole("dialog", { name: "API key" });
  await dialog.waitFor();
  expect(await axe(page)).toEqual([]);
  await dialog.getByLabel("Key").fill(key);
  await dialog.getByRole("button", { name: "Use this key" }).click();
  await dialog.waitFor({ state: "detached" });
  await page.getByRole("heading", { level: 1, name: "Caches" }).waitFor();
  await page.getByRole("button", { name: "API key set" }).waitFor();
  await expect.poll(() => page.getByRole("alert").count()).toBe(0);
  expect(page.url()).not.toContain(key);
  expect(await page.evaluate(() => JSON.stringify({ ...localStorage }) + document.cookie)).not.toContain(key);
  // It lasts as long as the tab.
  await page.reload();
  await page.getByRole("button", { name: "API key set" }).waitFor();
  expect(await dialog.count()).toBe(0);
});

test("a wrong key is refused with the server's words, and can be forgotten", async () => {
  const page = await open("/caches", { origin, allow: REFUSED });
  const dialog = page.getByRole("dialog", { name: "API key" });
  await dialog.getByLabel("Key").fill("rsd_wrong");
  await dialog.getByRole("button", { name: "Use this key" }).click();
  await page.getByText("api_key_invalid").first().waitFor();
  // It asks for another one.
  await dialog.getByRole("button", { name: "Forget the key" }).click();
  await dialog.waitFor();
});

test("a key that may only read is told so when it tries more", async () => {
  const page = await open("/?text=Hello", { origin, allow: REFUSED });
  const dialog = page.getByRole("dialog", { name: "API key" });
  await dialog.getByLabel("Key").fill(reader);
  await dialog.getByRole("button", { name: "Use this key" }).click();
  await dialog.waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Run", exact: true }).click();
  await page.getByText("scope_missing").first().waitFor();
});

// Vite's proxy answers for a server that is gone.
test.skipIf(process.env.UI_PREVIEW)("a server that is gone is said, and what failed is loaded when it is back", async () => {
  const port = await freePort();
  let own = await startServer(MODELS.slice(2), undefined, port);
  const page = await open("/server", { origin: own.url, allow: /ERR_CONNECTION|Failed to load resource/ });
  await page.getByText("tiny-neox").first().waitFor();
  await own.stop();
  await page.getByRole("link", { name: "Caches" }).click();
  await page.getByText("The server does not answer").first().waitFor();
  own = await startServer(MODELS.slice(2), undefined, port);
  await expect.poll(() => page.getByText("The server does not answer").count(), { timeout: 15_000 }).toBe(0);
  await expect.poll(() => page.getByRole("alert").count()).toBe(0);
  await own.stop();
});
