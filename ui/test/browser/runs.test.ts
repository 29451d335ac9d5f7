import { expect, test } from "vitest";
import { api, axe, expectSound, HOSTILE, NEOX, open, SMOL } from "./harness";

const LONG = { model: SMOL, input: "Once upon a time", generate: { max_new_tokens: 2000 }, capture: { hooks: [] } };

test("runs are listed with status, priority and tags, and filtered by the address", async () => {
  const tag = `list-${Date.now()}`;
  const run = await api().run({ model: SMOL, input: "Hello", tags: [tag], priority: "bulk" });
  const page = await open(`/runs?tag=${tag}`);
  const row = page.getByRole("row").filter({ hasText: run.id.slice(0, 13) });
  await row.waitFor();
  expect(await page.getByRole("row").count()).toBe(2);
  const text = (await row.textContent()) ?? "";
  for (const word of ["completed", "1 of 1 input", SMOL, "bulk", tag]) expect(text).toContain(word);
  expect(await axe(page)).toEqual([]);
  await page.getByLabel("Status").selectOption("failed");
  await page.getByText("No run matches").waitFor();
  await page.goBack();
  await row.waitFor();
  await page.getByRole("button", { name: `Delete run ${run.id}` }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByText("its cache").waitFor();
  expect(await axe(page)).toEqual([]);
  await dialog.getByRole("button", { name: "Delete run and caches" }).click();
  await page.getByText("No run matches").waitFor();
  await expect(api().get("/v1/runs/{id}", { params: { path: { id: run.id } } })).rejects.toMatchObject({ status: 404 });
});

test("a run that goes on shows its text as it is written, its speed, and can be cancelled", async () => {
  const run = await api().runs.create(LONG);
  const page = await open(`/runs/${run.id}`);
  await page.getByRole("heading", { name: "Being written" }).waitFor();
  const written = page.locator(".written").first();
  const length = async () => ((await written.textContent()) ?? "").length;
  await expect.poll(length).toBeGreaterThan(5);
  const before = await length();
  await expect.poll(length).toBeGreaterThan(before);
  await page.getByText(/tokens\/s/).waitFor();
  expect(await page.getByRole("progressbar").count()).toBe(1);
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.getByText("cancelled").first().waitFor();
  expect((await api().waitForRun(run.id, { allowFailure: true })).status).toBe("cancelled");
});

test("a list with a run that goes on follows it, and stops asking when it has ended", async () => {
  const tag = `live-${Date.now()}`;
  const run = await api().runs.create({ ...LONG, tags: [tag] });
  const page = await open(`/runs?tag=${tag}`);
  await page.locator("td .status-running").waitFor();
  await page.getByText(/tokens\/s/).waitFor();
  await page.getByRole("button", { name: `Cancel run ${run.id}` }).click();
  await page.locator("td .status-cancelled").waitFor();
  let asked = 0;
  page.on("request", (request) => {
    if (request.url().includes("/v1/runs")) asked++;
  });
  await page.waitForTimeout(2_500);
  expect(asked).toBe(0);
});

test("an ended run has its texts, next tokens, caches, and leads on", async () => {
  const input = ["The Eiffel Tower is in the city of", "The Colosseum is in the city of"];
  const run = await api().run({
    model: SMOL,
    input,
    capture: { hooks: ["resid_post", "logits"], layers: [0, 6], positions: "last" },
    generate: { max_new_tokens: 3 },
    tags: ["tour"],
    metadata: { split: "train" },
  });
  const page = await open(`/runs/${run.id}`);
  const first = page.locator(".run-caches li").first();
  await first.waitFor();
  const { items } = await api().get("/v1/runs/{id}/caches", {
    params: { path: { id: run.id }, query: { include: ["top_tokens"], top_k: 3 } },
  });
  expect(await page.locator(".run-caches li").count()).toBe(2);
  const shown = (await first.textContent()) ?? "";
  expect(shown).toContain(items[0]?.completion?.text);
  expect(shown).toContain(`${((items[0]?.top_tokens?.tokens[0]?.probability ?? 0) * 100).toFixed(1)} %`);
  await page.getByText("split=train").waitFor();
  expect(await axe(page)).toEqual([]);

  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Download" }).click()]);
  expect(download.suggestedFilename()).toBe(`run-${run.id}.safetensors`);

  await page.getByRole("link", { name: "Run again" }).click();
  await expect.poll(() => page.getByLabel("Text", { exact: true }).inputValue()).toBe(input.join("\n"));
  expect(await page.getByLabel(/^Layers/).inputValue()).toBe("0,6");
  expect(await page.getByLabel(/^Positions/).inputValue()).toBe("last");
  expect(await page.getByLabel("New tokens").inputValue()).toBe("3");
  await page.goBack();
  await page.getByRole("link", { name: input[0] as string }).click();
  expect(new URL(page.url()).pathname).toBe(`/ui/caches/${run.caches[0]}`);
});

test("inputs that failed are named with their problem", async () => {
  const run = await api().run({ model: NEOX, input: ["ab", "cd"] });
  const error = { type: "urn:x", title: "Not finite", status: 422, code: "not_finite", detail: `NaN in block 1 ${HOSTILE}` };
  const failed = { ...run, status: "failed", n_items: 3, n_failed: 1, error, tokens_per_second: 0, eta_seconds: null };
  const page = await open("/nothing");
  await page.route(`**/v1/runs/${run.id}/events`, (route) =>
    route.fulfill({ contentType: "text/event-stream", body: `event: run\ndata: ${JSON.stringify(failed)}\n\n` }),
  );
  await page.evaluate((path) => {
    history.pushState(null, "", path);
    dispatchEvent(new PopStateEvent("popstate"));
  }, `/ui/runs/${run.id}`);
  await page.getByRole("heading", { name: "1 input failed" }).waitFor();
  const said = page.getByText(/^Input 2:/);
  await said.waitFor();
  expect(await said.textContent()).toContain("not_finite");
  await expectSound(page);
  expect(await axe(page)).toEqual([]);
});

test("a run that is not there is a problem with its code", async () => {
  const page = await open("/runs/01a22e04-9172-7433-a848-ba5711f8e937", { allow: /404/ });
  await page.getByRole("alert").getByText("run_not_found").waitFor();
  await page.getByRole("link", { name: "All runs" }).waitFor();
});

test("texts of markup are text, on a phone too", async () => {
  const run = await api().run({
    model: SMOL,
    items: [{ text: HOSTILE, label: HOSTILE }],
    tags: [HOSTILE.slice(0, 60)],
    metadata: { [HOSTILE]: HOSTILE },
    generate: { max_new_tokens: 2 },
    capture: { hooks: ["logits"] },
  });
  const page = await open(`/runs/${run.id}`, { width: 360, height: 720, theme: "dark" });
  await page.locator(".run-caches li").waitFor();
  await expectSound(page);
  await page.goto(page.url().replace(/runs\/.*/, "runs"));
  await page.getByRole("row").nth(1).waitFor();
  await expectSound(page);
  expect(await axe(page)).toEqual([]);
});
