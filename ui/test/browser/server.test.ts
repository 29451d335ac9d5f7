/** The server page: what it shows equals the API, and what it changes has an effect. */
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createClient, writeSafetensors } from "../../../clients/typescript/src/index";
import { api, axe, expectSound, HOSTILE, NEOX, open, SMOL } from "./harness";
import { type Server, startPreview, startServer } from "./setup";

const goldens = fileURLToPath(new URL("../../../tests/goldens", import.meta.url));
const keys = { admin: "", read: "" };
const stops: (() => Promise<void>)[] = [];
/** A server with keys and a models folder, and the address of its page. */
let keyed: Server;
let origin = "";

beforeAll(async () => {
  const model = `neox=${join(goldens, "gpt_neox/parallel")}`;
  const settings = ["--models-dir", goldens, "--max-store-bytes", "1000000000", "--model", model];
  keyed = await startServer(settings, (binary, data) => {
    for (const scope of ["admin", "read"] as const) {
      const said = execFileSync(binary, ["keys", "create", "--data-dir", data, "--name", scope, "--scope", scope], {
        stdio: "pipe",
      });
      keys[scope] = /rsd_\w+/.exec(said.toString())?.[0] ?? "";
    }
  });
  stops.unshift(keyed.stop);
  origin = keyed.url;
  if (process.env.UI_PREVIEW) {
    const page = await startPreview(keyed.url);
    stops.unshift(page.stop);
    origin = page.url;
  }
});

afterAll(async () => {
  for (const stop of stops) await stop();
});

/** Opens the page of the server with keys, and gives it one. */
async function openWith(key: string, path = "/server", allow?: RegExp) {
  const page = await open("/nowhere", { origin, ...(allow && { allow }) });
  await page.evaluate((value) => sessionStorage.setItem("residuum-key", value), key);
  await page.goto(`${origin}/ui${path}`);
  return page;
}

/** The form that loads a model. */
const form = (page: Page) => page.locator("details[open] form");

test("models with their sizes, the store, the queue and readiness", async () => {
  await api().run({ model: SMOL, input: HOSTILE });
  const page = await open("/server");
  for (const id of [SMOL, NEOX]) {
    const model = (await api().get("/v1/models")).items.find((one) => one.id === id);
    if (model?.status !== "ready") throw new Error(`${id} is not ready`);
    const card = page.getByRole("article", { name: id });
    await card.getByText("ready", { exact: true }).waitFor();
    const facts = await card.locator("dd").allTextContents();
    expect(facts).toEqual(
      expect.arrayContaining([model.architecture, String(model.n_layers), String(model.d_model), model.device]),
    );
    expect(facts).toContain(model.fingerprint.slice(0, 12));
    if (model.warnings[0]) expect(await card.textContent()).toContain(model.warnings[0].detail);
  }
  await page.getByText("All models of its flags are loaded").waitFor();
  const shown = page.getByRole("region", { name: "Store" }).locator("div", { has: page.getByText("caches", { exact: true }) });
  // The page asks every three seconds, and runs of tests before may still be stored.
  const agrees = async () => {
    const metrics = await (await api().request("/metrics")).text();
    const caches = /^residuum_store_caches (\d+)$/m.exec(metrics)?.[1];
    return (await shown.last().locator("dd").textContent())?.replace(/\D/g, "") === caches;
  };
  await expect.poll(agrees, { timeout: 15_000 }).toBe(true);
  expect(await axe(page)).toEqual([]);
  await expectSound(page);
});

test("numbers are asked for again, and not while the tab is hidden", async () => {
  const page = await open("/server");
  let asked = 0;
  page.on("request", (request) => {
    if (request.url().endsWith("/metrics")) asked++;
  });
  await page.getByRole("heading", { name: "Store" }).waitFor();
  await page.waitForRequest((request) => request.url().endsWith("/metrics"), { timeout: 6_000 });
  const hide = (hidden: boolean) =>
    page.evaluate((value) => {
      Object.defineProperty(document, "hidden", { configurable: true, get: () => value });
      document.dispatchEvent(new Event("visibilitychange"));
    }, hidden);
  await hide(true);
  await page.waitForTimeout(500);
  asked = 0;
  await page.waitForTimeout(4_000);
  expect(asked).toBe(0);
  await hide(false);
  await expect.poll(() => asked).toBe(1);
});

test("an administrator loads a model, sees it become ready, and unloads it after a question", async () => {
  const page = await openWith(keys.admin, "/server?load=model");
  await page.getByText("of 1 GB").waitFor();
  await form(page).getByRole("textbox", { name: /^Name/ }).fill("loaded-here");
  await form(page)
    .getByRole("textbox", { name: /^Source/ })
    .fill("gpt2/plain");
  await form(page).getByRole("button", { name: "Load", exact: true }).click();
  const admin = createClient({ baseUrl: keyed.url, apiKey: keys.admin });
  const card = page.getByRole("article", { name: "loaded-here" });
  await card.getByText("ready", { exact: true }).waitFor();
  await card.getByText("a request: gpt2/plain").waitFor();
  expect((await admin.get("/v1/models/{id}", { params: { path: { id: "loaded-here" } } })).status).toBe("ready");
  await page.getByRole("button", { name: "Unload loaded-here" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
  expect(await card.isVisible()).toBe(true);
  await page.getByRole("button", { name: "Unload loaded-here" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Unload" }).click();
  await card.waitFor({ state: "detached" });
  expect((await admin.get("/v1/models")).items.map(({ id }) => id)).toEqual(["neox"]);
});

test("an autoencoder is uploaded, described, and unloaded", async () => {
  const page = await openWith(keys.admin, "/server?load=autoencoder");
  const [width, features] = [32, 8];
  const weights = writeSafetensors({
    W_enc: { shape: [width, features], data: new Float32Array(width * features).fill(0.1) },
    b_enc: { shape: [features], data: new Float32Array(features) },
    W_dec: { shape: [features, width], data: new Float32Array(width * features).fill(0.1) },
    b_dec: { shape: [width], data: new Float32Array(width) },
  });
  const cfg = {
    ...{ architecture: "standard", d_in: width, d_sae: features, dtype: "float32", device: "cpu" },
    ...{ apply_b_dec_to_input: true, normalize_activations: "none", reshape_activations: "none" },
    metadata: { sae_lens_version: "6.54.12", hook_name: "blocks.1.hook_resid_post", prepend_bos: false, odd: 1 },
  };
  await form(page).getByRole("textbox", { name: /^Name/ }).fill("uploaded");
  await form(page).getByRole("combobox").selectOption("neox");
  await page.getByRole("button", { name: "Upload" }).click();
  await page
    .getByLabel("cfg.json")
    .setInputFiles({ name: "cfg.json", mimeType: "application/json", buffer: Buffer.from(JSON.stringify(cfg)) });
  await page
    .getByLabel("sae_weights.safetensors")
    .setInputFiles({ name: "w", mimeType: "application/octet-stream", buffer: Buffer.from(weights) });
  await form(page).getByRole("button", { name: "Load", exact: true }).click();
  const card = page.getByRole("article", { name: "uploaded" });
  await card.getByText("ready", { exact: true }).waitFor();
  expect(await card.locator("dd").allTextContents()).toEqual(
    expect.arrayContaining(["neox", "blocks.1.hook_resid_post", "standard", "8", "32", "an upload"]),
  );
  expect(await card.getByRole("link", { name: "Features" }).getAttribute("href")).toBe("/ui/features?sae=uploaded");
  await page.getByRole("button", { name: "Unload uploaded" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Unload" }).click();
  await card.waitFor({ state: "detached" });
});

test("a source that does not exist is refused with the API's own words", async () => {
  const page = await openWith(keys.admin, "/server?load=model", /422/);
  await form(page).getByRole("textbox", { name: /^Name/ }).fill("x");
  await form(page)
    .getByRole("textbox", { name: /^Source/ })
    .fill("no/such/folder");
  await form(page)
    .getByRole("textbox", { name: /^Source/ })
    .press("Enter");
  await page.getByRole("alert").getByText("unknown_source").waitFor();
  expect(await axe(page)).toEqual([]);
});

test("a key that may only read: numbers and loading are refused, and the scopes that it lacks are found", async () => {
  const page = await openWith(keys.read, "/server?load=model", /40[0134]/);
  await page.getByText("need a key with the scope").waitFor();
  await form(page).getByRole("textbox", { name: /^Name/ }).fill("x");
  await form(page)
    .getByRole("textbox", { name: /^Source/ })
    .fill("gpt2/plain");
  await form(page).getByRole("button", { name: "Load", exact: true }).click();
  await page.getByRole("alert").getByText("scope_missing").waitFor();
  await page.getByRole("button", { name: "Ask what it may do" }).click();
  const scopes = page.getByRole("list", { name: "Scopes" });
  await scopes.waitFor();
  const said = await scopes.getByRole("listitem").allTextContents();
  expect(said.map((text) => /^(\w+?)(allowed|refused)/.exec(text)?.slice(1))).toEqual([
    ["read", "allowed"],
    ["write", "refused"],
    ["metrics", "refused"],
    ["admin", "refused"],
  ]);
  // The public part of the key may be shown, its secret never.
  expect(await page.locator("main").textContent()).toContain(keys.read.split("_")[1] as string);
  expect(await page.content()).not.toContain(keys.read.split("_")[2] as string);
});

test("on a phone nothing is wider than the window", async () => {
  const page = await open("/server?load=model", { width: 360, height: 720, theme: "dark" });
  await page.getByRole("article", { name: SMOL }).waitFor();
  await page.getByRole("heading", { name: "Store" }).waitFor();
  await expectSound(page);
  expect(await axe(page)).toEqual([]);
});

test("an empty store: the map and the search say what to do first", async () => {
  const map = await openWith(keys.read, "/map");
  await map.getByText("There is nothing to map yet").waitFor();
  const search = await openWith(keys.read, "/search?text=hello");
  await search.getByText("Nothing of neox is stored yet").waitFor();
  expect(await search.getByRole("link", { name: "Capture some texts" }).getAttribute("href")).toBe("/ui/");
  expect(await axe(search)).toEqual([]);
});
