import { expect, test } from "vitest";
import { api, axe, expectSound, HOSTILE, NEOX, open, SMOL } from "./harness";

const TEXT = "The Eiffel Tower is in the city of";
const address = (values: Record<string, string>) => `/?${new URLSearchParams(values)}`;

test("an example, its tokens, its cost and its run equal the API's", async () => {
  const page = await open(address({ model: SMOL }));
  await page.getByRole("button", { name: TEXT }).click();
  const strip = page.getByRole("group", { name: /^Tokens of the text/ });
  await strip.waitFor();
  const tokens = await api().post("/v1/tokenize", { body: { model: SMOL, text: TEXT } });
  if (!("tokens" in tokens)) throw new Error("one text");
  await expect.poll(() => strip.getByRole("button").count()).toBe(tokens.n_tokens);
  await page.getByText(`${tokens.n_tokens} tokens.`).waitFor();
  await page.getByText("No beginning-of-sequence token is added").waitFor();

  await strip.getByRole("button").nth(3).click();
  expect(await page.getByLabel(/^Positions/).inputValue()).toBe("3");
  await strip.getByRole("button").nth(1).press("Enter");
  expect(await page.getByLabel(/^Positions/).inputValue()).toBe("1,3");
  await page.getByLabel(/^Layers/).fill("0,6,12:14");
  const body = { model: SMOL, input: TEXT, capture: { layers: [0, 6, 12, 13], positions: [1, 3] } };
  const { n_bytes: size } = await api().dryRun(body);
  expect(size).toBe(4 * 2 * 576 * 4);
  await page.getByText("18.4 kB", { exact: true }).waitFor();
  await expect.poll(() => new URL(page.url()).searchParams.get("layers")).toBe("0,6,12:14");
  expect(await axe(page)).toEqual([]);

  await page.getByLabel("Text", { exact: true }).press("Control+Enter");
  await page.waitForURL("**/ui/runs/*");
  const id = new URL(page.url()).pathname.split("/").at(-1) as string;
  const run = await api().waitForRun(id);
  expect(run.priority).toBe("interactive");
  const cache = await api().get("/v1/caches/{id}", { params: { path: { id: run.caches[0] as string } } });
  expect(cache.positions).toEqual([1, 3]);
  expect(cache.hooks.map(({ hook, shape }) => [hook, shape])).toEqual(
    [0, 6, 12, 13].map((layer) => [`blocks.${layer}.hook_resid_post`, [2, 576]]),
  );
  // Back to the form as it was.
  await page.goBack();
  await expect.poll(() => page.getByLabel("Text", { exact: true }).inputValue()).toBe(TEXT);
  expect(await page.getByLabel(/^Layers/).inputValue()).toBe("0,6,12:14");
});

test("every field reaches the run", async () => {
  const page = await open(address({ model: NEOX, text: "abc\nabd", lines: "true", priority: "bulk" }));
  await page.getByLabel("New tokens").fill("2");
  await page.getByLabel("Samples").fill("2");
  await page.getByLabel("Temperature").fill("0.7");
  await page.getByLabel("Seed").fill("5");
  await page.getByLabel("Stored as").selectOption("float16");
  await page.getByLabel("Special tokens").selectOption("with");
  await page.getByLabel(/^Tags/).fill("home-test, x");
  await page.getByLabel("Label").fill("both");
  await page.getByLabel(/^Metadata/).fill('n=1\nwhat=<b>"');
  await page.getByRole("button", { name: "Run", exact: true }).click();
  await page.waitForURL("**/ui/runs/*");
  const run = await api().waitForRun(new URL(page.url()).pathname.split("/").at(-1) as string);
  expect([run.n_items, run.priority, run.tags, run.metadata]).toEqual([4, "bulk", ["home-test", "x"], { n: 1, what: '<b>"' }]);
  const cache = await api().get("/v1/caches/{id}", { params: { path: { id: run.caches[0] as string } } });
  expect([cache.label, cache.hooks[0]?.dtype, cache.bos.added, cache.completion?.seed, cache.completion?.temperature]).toEqual([
    "both",
    "float16",
    true,
    5,
    0.7,
  ]);
});

test("a chat has messages that are added and removed, and tokens as its template makes them", async () => {
  const page = await open(address({ model: SMOL }));
  await page.getByRole("button", { name: "Chat" }).click();
  await page.getByLabel("Message 1", { exact: true }).fill("Where is the Colosseum?");
  const messages = [{ role: "user", content: "Where is the Colosseum?" }];
  const tokens = await api().post("/v1/tokenize", { body: { model: SMOL, messages } });
  if (!("tokens" in tokens)) throw new Error("one chat");
  const strip = page.getByRole("group", { name: /^Tokens of the text/ });
  await expect.poll(() => strip.getByRole("button").count()).toBe(tokens.n_tokens);
  expect(await strip.locator(".token-special").count()).toBe(tokens.special.filter(Boolean).length);
  await page.getByRole("button", { name: "Add a message" }).click();
  await page.getByLabel("Message 2", { exact: true }).fill("In Rome.");
  await page.getByRole("button", { name: "Remove message 2" }).click();
  expect(await page.getByLabel("Message 2", { exact: true }).count()).toBe(0);
  await page.getByRole("button", { name: "Command line" }).click();
  expect(await page.locator(".copy-as pre").textContent()).toContain("--user='Where is the Colosseum?'");
  expect(await axe(page)).toEqual([]);
  await page.getByRole("button", { name: "Run", exact: true }).click();
  await page.waitForURL("**/ui/runs/*");
  const run = await api().waitForRun(new URL(page.url()).pathname.split("/").at(-1) as string);
  const cache = await api().get("/v1/caches/{id}", { params: { path: { id: run.caches[0] as string } } });
  expect(cache.token_ids).toEqual(tokens.token_ids);
});

test("what is wrong is said beside the field: by the form, and by the server", async () => {
  const page = await open(address({ model: SMOL, text: "Hello" }), { allow: /422/ });
  const layers = page.getByLabel(/^Layers/);
  await layers.fill("99");
  await page.getByText("There is no layer 99: they are 0 to 29.").waitFor();
  expect(await page.getByRole("button", { name: "Run", exact: true }).isDisabled()).toBe(true);
  await layers.fill("");
  await page.getByLabel(/^Positions/).fill("text:absent");
  // The same words as the API's, in the card of the capture and with the code beside the button.
  const problem: { detail: string; code: string } = await api()
    .dryRun({ model: SMOL, input: "Hello", capture: { positions: { text: "absent" } } })
    .then(() => Promise.reject(new Error("not refused")))
    .catch((error) => error);
  await page.locator("section", { hasText: "Capture" }).locator(".fault-bad", { hasText: problem.detail }).waitFor();
  await page.getByRole("alert").getByText(problem.code).waitFor();
  await page.getByLabel(/^Positions/).fill("last");
  await expect.poll(() => page.getByRole("alert").count()).toBe(0);
  await page.getByLabel("New tokens").fill("900000");
  await page.getByText(/^New tokens: .*no room in a context of 8192/).waitFor();
});

test("a text of markup and marks that turn the line around is text", async () => {
  const page = await open(address({ model: SMOL, text: HOSTILE, label: HOSTILE, tags: HOSTILE }), { width: 360, height: 720 });
  await page.getByRole("group", { name: /^Tokens of the text/ }).waitFor();
  await expectSound(page);
  await page.getByRole("button", { name: "Run", exact: true }).waitFor();
  expect(await axe(page)).toEqual([]);
});

test("hooks are those of the model's family, and all of them can be captured", async () => {
  const page = await open(address({ model: NEOX, text: "abc" }), { theme: "dark" });
  const details = await api().get("/v1/models/{id}", { params: { path: { id: NEOX } } });
  if (details.status !== "ready") throw new Error("ready");
  const names = new Set(details.hooks?.map(({ hook }) => hook.replace(/^blocks\.\d+\./, "")));
  await page.locator("details.hook-group").first().waitFor();
  await page.locator("details.hook-group").evaluateAll((groups) => {
    for (const group of groups as HTMLDetailsElement[]) group.open = true;
  });
  const boxes = page.locator(".hook-list input");
  await expect.poll(() => boxes.count()).toBe(names.size);
  for (const box of await boxes.all()) await box.check();
  await page.getByLabel(/^Positions/).fill("all");
  await expect.poll(() => new URL(page.url()).searchParams.getAll("hook").length).toBe(names.size);
  await page.getByRole("button", { name: "Run", exact: true }).click();
  await page.waitForURL("**/ui/runs/*");
  const run = await api().waitForRun(new URL(page.url()).pathname.split("/").at(-1) as string);
  const cache = await api().get("/v1/caches/{id}", { params: { path: { id: run.caches[0] as string } } });
  expect(cache.hooks.length).toBe(details.hooks?.length);
});

test("a server without a model says what to do, and one that loads says so", async () => {
  const page = await open("/nothing");
  const list = (items: unknown[]) => ({ json: { items, next_cursor: null } });
  let items: unknown[] = [];
  await page.route("**/v1/models", (route) => route.fulfill(list(items)));
  await page.getByRole("link", { name: "New run", exact: true }).click();
  await page.getByText("This server has no model").waitFor();
  const loading = { id: "big", status: "loading", progress: { stage: "weights", bytes_done: 25, bytes_total: 100 }, error: null };
  items = [loading];
  await page.getByRole("link", { name: "Runs", exact: true }).click();
  await page.getByRole("link", { name: "New run", exact: true }).click();
  await page.getByText("big is loading 25 %").waitFor();
  await page.getByText("No model is ready yet").waitFor();
  // It is asked for again until it is ready.
  await page.unroute("**/v1/models");
  await page.getByLabel("Text", { exact: true }).waitFor();
});
