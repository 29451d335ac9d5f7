/** The pages about one cache: overview, logit lens, attention. */
import { beforeAll, expect, test } from "vitest";
import type { Cache } from "../../../clients/typescript/src/index";
import { exact, percent, significant } from "../../src/format/numbers";
import { api, axe, expectSound, HOSTILE, NEOX, open, SMOL } from "./harness";

let full: Cache;
let plain: Cache;
let hostile: Cache;
let neox: Cache;

async function capture(model: string, input: string, hooks: string[], extra: object = {}): Promise<Cache> {
  const run = await api().run({ model, input, capture: { hooks, positions: "all" }, ...extra });
  return await api().get("/v1/caches/{id}", { params: { path: { id: run.caches[0] as string } } });
}

const ALL = ["embed", "resid_post", "attn_out", "mlp_out", "attn.pattern"];

beforeAll(async () => {
  full = await capture(SMOL, "The Eiffel Tower is in the city of", ALL, { tags: ["ui"], metadata: { n: 1 } });
  plain = await capture(SMOL, "The Colosseum is in the city of", ["mlp_out"]);
  hostile = await capture(SMOL, HOSTILE, ALL, { tags: ["<b>tag</b>"], metadata: { "<i>": "\u202e<u>" } });
  neox = await capture(NEOX, "a b c d", ALL);
});

test("the overview colours tokens by norms and cosines of their rows", async () => {
  const page = await open(`/caches/${full.id}?layer=12&table=tokens`);
  await page.getByRole("heading", { name: "Norm at layer 12" }).waitFor();
  const rows = await api().tensor(full.id, "blocks.12.hook_resid_post");
  const norm = (i: number) => Math.sqrt([...rows.row(i).data].reduce((sum, x) => sum + x * x, 0));
  await page.getByRole("row", { name: /·Tower/ }).waitFor();
  const cells = page.getByRole("row", { name: /·Tower/ }).getByRole("cell");
  expect(await cells.last().textContent()).toBe(exact(norm(3)));
  await page.getByRole("button", { name: "Similarity" }).click();
  await page.getByText("Choose a token to compare").waitFor();
  const dot = [...rows.row(3).data].reduce((sum, x, i) => sum + x * (rows.row(8).data[i] as number), 0);
  await expect.poll(() => cells.last().textContent()).toBe(exact(dot / (norm(3) * norm(8))));
  expect(new URL(page.url()).searchParams.get("colour")).toBe("similarity");
  expect(await axe(page)).toEqual([]);
});

test("notes can be edited, and what is not plain stays as it is", async () => {
  const page = await open(`/caches/${full.id}`);
  await page.getByRole("button", { name: "Edit" }).click();
  await page.getByLabel("Label").fill("tower");
  await page.getByLabel(/^Tags/).fill("ui, edited");
  await page.getByLabel(/^Metadata/).fill("n=2\nwhy=test");
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByRole("link", { name: "edited" }).waitFor();
  const now = await api().get("/v1/caches/{id}", { params: { path: { id: full.id } } });
  expect([now.label, now.tags, now.metadata]).toEqual(["tower", ["ui", "edited"], { n: 2, why: "test" }]);
});

test("the receipt says what made the numbers, and hooks can be downloaded", async () => {
  const page = await open(`/caches/${full.id}?find=29.hook_resid`);
  await page.getByText(full.content_hash).waitFor();
  await page.getByText("All stored values are finite.").waitFor();
  const [file] = await Promise.all([
    page.waitForEvent("download"),
    page.getByRole("button", { name: "blocks.29.hook_resid_post as npy" }).click(),
  ]);
  expect(file.suggestedFilename()).toContain("npy");
});

test("a cache that does not exist is a problem with its code", async () => {
  const page = await open("/caches/01a22ee7-61a1-71ff-9a3e-000000000000", { allow: /404/ });
  await page.getByText("cache_not_found").waitFor();
});

test("the lens shows the API's numbers, follows a token, and adds up the parts of its logit", async () => {
  const page = await open(`/caches/${full.id}/lens?table=grid&follow=${encodeURIComponent(" Paris")}`);
  const lens = await api().post("/v1/caches/{id}/lens", {
    params: { path: { id: full.id } },
    body: { top_k: 10, tokens: [" Paris"] },
  });
  const last = lens.values.at(-1)?.at(-1);
  const row = page.getByRole("row").nth(lens.positions.length);
  await row.waitFor();
  expect(await row.textContent()).toContain(exact(last?.top[0]?.probability));
  await page
    .getByText(percent(last?.top[0]?.probability ?? 0))
    .first()
    .waitFor();
  await page.getByRole("button", { name: "Rank" }).click();
  await page
    .getByText("rank (1 is the top)")
    .or(page.getByRole("img", { name: /rank of/ }))
    .first()
    .waitFor();
  const parts = await api().post("/v1/caches/{id}/attribution", {
    params: { path: { id: full.id } },
    body: { token: " Paris", position: 8 },
  });
  await page.goto(page.url().replace("table=grid", "table=parts"));
  const table = page.getByRole("region", { name: "Parts of the logit of ·Paris" });
  await table.waitFor();
  const shown = await table
    .getByRole("row")
    .evaluateAll((rows) => rows.slice(1).map((row) => [...row.children].map((cell) => cell.textContent)));
  expect(shown.map((cells) => [cells[0], cells.at(-1)])).toEqual(parts.parts.map(({ name, value }) => [name, exact(value)]));
  await page
    .getByText(`${significant(parts.logit ?? 0, 5)} in all; the parts sum to ${significant(parts.sum ?? 0, 5)}.`)
    .waitFor();
  expect(await axe(page)).toEqual([]);
});

test("arrow keys read out the cells of the lens", async () => {
  const page = await open(`/caches/${full.id}/lens`);
  const grid = page.getByRole("application", { name: /Most probable next token/ });
  await grid.focus();
  await page.keyboard.press("ArrowUp");
  await page.keyboard.press("Home");
  await page.keyboard.press("ArrowDown");
  await expect.poll(() => page.locator("output[aria-live]").first().textContent()).toMatch(/Layer 28, after The/);
  await page.keyboard.press("Enter");
  await expect.poll(() => new URL(page.url()).searchParams.get("layer")).toBe("28");
});

test("a token that is refused is said, and the grid stays", async () => {
  const page = await open(`/caches/${full.id}/lens`, { allow: /422/ });
  const grid = page.getByRole("application", { name: /Most probable next token/ });
  await grid.waitFor();
  await page.getByLabel("Follow a token").fill("Mississippi River");
  await page.getByRole("button", { name: "Follow", exact: true }).click();
  await page.getByRole("alert").first().waitFor();
  expect(await grid.isVisible()).toBe(true);
});

test("what the lens needs is captured on demand", async () => {
  const page = await open(`/caches/${plain.id}/lens`);
  await page.getByRole("button", { name: "Capture it" }).click();
  await page.waitForURL((url) => url.pathname.endsWith("/lens") && !url.pathname.includes(plain.id));
  await page.getByRole("heading", { name: "Most probable next token" }).waitFor();
});

test("attention shows the stored weights, and captures them on demand", async () => {
  const page = await open(`/caches/${full.id}/attention?layer=5&head=3&query=8`);
  await page.getByRole("heading", { name: "Head 5.3" }).waitFor();
  const pattern = await api().tensor(full.id, "blocks.5.attn.hook_pattern");
  const weight = pattern.at(3, 8, 6);
  await page.getByRole("button", { name: `·the (6): ${percent(Number(weight))}` }).waitFor();
  await page.getByRole("button", { name: /^Head 3:/ }).focus();
  await page.keyboard.press("ArrowRight");
  await page.getByRole("heading", { name: "Head 5.4" }).waitFor();
  expect(await axe(page)).toEqual([]);
  await page.goto(page.url().replace(full.id, plain.id));
  await page.getByRole("button", { name: "Capture them" }).click();
  await page.getByRole("heading", { name: /^Heads of layer/ }).waitFor();
});

test.each(["", "/lens", "/attention"])("texts of users stay texts, also on a phone: %s", async (view) => {
  const page = await open(`/caches/${hostile.id}${view}`, { width: 360, height: 720, theme: "dark" });
  await page.getByRole("heading", { level: 1 }).waitFor();
  await page.waitForLoadState("networkidle");
  expect(await page.getByRole("heading", { level: 1 }).textContent()).toContain("<img src=x");
  await expectSound(page);
  expect(await axe(page)).toEqual([]);
});

test.each(["", "/lens", "/attention"])("the second family works: %s", async (view) => {
  const page = await open(`/caches/${neox.id}${view}`);
  await page.getByRole("heading", { level: 1, name: /a b c d/ }).waitFor();
  await page.waitForLoadState("networkidle");
  expect(await page.getByRole("alert").allTextContents()).toEqual([]);
  await page.locator("figure").first().waitFor();
});
