/** The list of caches, and comparisons. */
import { beforeAll, expect, test } from "vitest";
import { exact } from "../../src/format/numbers";
import { api, axe, expectSound, HOSTILE, NEOX, open, SMOL } from "./harness";

const TAG = "ui-list";
let ids: string[];

beforeAll(async () => {
  const texts = ["The zebra crossed the river", "The zebra crossed the road", "A lighthouse stands alone", HOSTILE];
  const run = await api().run({
    model: SMOL,
    items: texts.map((text, i) => ({ text, label: i < 2 ? "zebra" : "other", metadata: { n: i } })),
    tags: [TAG],
    capture: { hooks: ["resid_post"], positions: "all" },
  });
  ids = run.caches;
  await api().run({ model: NEOX, input: ["a b c", "a c b", "b c a d"], tags: ["ui-neox"], capture: { positions: "all" } });
});

test("words, phrases and filters find caches; the address has them", async () => {
  const page = await open(`/caches?tag=${TAG}`);
  const rows = page.getByRole("grid", { name: "Caches" }).getByRole("row");
  await expect.poll(() => rows.count()).toBe(4);
  await page.keyboard.press("/");
  await page.keyboard.type('zebra "the road"');
  await expect.poll(() => rows.count()).toBe(1);
  expect(new URL(page.url()).searchParams.get("text")).toBe('zebra "the road"');
  await page.getByRole("searchbox").fill("");
  await page.getByRole("button", { name: "Filters" }).click();
  await page.getByLabel("Metadata").fill("n=2");
  await page.keyboard.press("Enter");
  await expect.poll(() => rows.count()).toBe(1);
  await page.getByRole("button", { name: /^n=2/ }).click();
  await expect.poll(() => rows.count()).toBe(4);
  expect(await axe(page)).toEqual([]);
  await expectSound(page);
});

test("keys select and open; the selected ones are tagged, pinned and deleted after a question", async () => {
  const { caches } = await api().run({ model: SMOL, input: ["Throw this away", "And this"], tags: ["ui-delete"], reuse: false });
  const page = await open("/caches?tag=ui-delete");
  const grid = page.getByRole("grid", { name: "Caches" });
  await grid.getByRole("row").nth(1).waitFor();
  await grid.focus();
  await page.keyboard.press(" ");
  await page.keyboard.press("Shift+ArrowDown");
  await page.getByText("2 caches selected").waitFor();
  await page.getByRole("button", { name: "Tag", exact: true }).click();
  await page.getByLabel("Add").fill("ui-tagged");
  await page.getByRole("button", { name: "Save" }).click();
  await grid.getByText("ui-tagged").first().waitFor();
  const tags = async (id: string) => (await api().get("/v1/caches/{id}", { params: { path: { id } } })).tags;
  expect(await tags(caches[0] as string)).toEqual(["ui-delete", "ui-tagged"]);
  await page.getByRole("button", { name: "Delete", exact: true }).click();
  await page.getByRole("button", { name: "Delete 2 caches" }).click();
  await page.getByText("No cache matches").waitFor();
});

test("Enter opens the current cache", async () => {
  const page = await open(`/caches?tag=${TAG}`);
  const grid = page.getByRole("grid", { name: "Caches" });
  await grid.getByRole("row").nth(3).waitFor();
  await grid.focus();
  await page.keyboard.press("End");
  await page.keyboard.press("Enter");
  const query = { tag: [TAG], order: "asc" as const, limit: 1 };
  const oldest = (await api().get("/v1/caches", { params: { query } })).items[0]?.id;
  await page.waitForURL(`**/caches/${oldest}`);
});

test("drift is the API's comparison of the pair", async () => {
  const [a, b] = ids as [string, string];
  const page = await open(`/compare?cache=${a}&cache=${b}&table=drift`);
  const found = await api().post("/v1/comparisons", { body: { mode: "pairs", a: [a], b: [b], metrics: ["cosine"] } });
  const values = (found.pairs?.[0]?.values as { cosine: number[] }).cosine;
  const row = page.getByRole("row").nth(8);
  await row.waitFor();
  expect(await row.getByRole("cell").textContent()).toBe(exact(values[7]));
  expect(await axe(page)).toEqual([]);
});

test("the matrix is the cosine of the stored rows", async () => {
  const query = ids
    .slice(0, 3)
    .map((id) => `cache=${id}`)
    .join("&");
  const page = await open(`/compare?mode=matrix&layer=10&table=matrix&${query}`);
  const rows = await Promise.all(ids.slice(0, 2).map((id) => api().tensor(id, "blocks.10.hook_resid_post", { position: -1 })));
  const [x, y] = rows.map(({ data }) => [...data]) as [number[], number[]];
  const dot = (p: number[], q: number[]) => p.reduce((sum, value, i) => sum + value * (q[i] as number), 0);
  const cell = page.getByRole("row").nth(1).getByRole("cell").nth(1);
  await cell.waitFor();
  const shown = Number((await cell.textContent())?.replace("−", "-"));
  expect(shown).toBeCloseTo(dot(x, y) / Math.sqrt(dot(x, x) * dot(y, y)), 9);
});

test("layers of two models are compared by CKA", async () => {
  await api().run({ model: SMOL, input: ["a b c", "a c b", "b c a d"], tags: ["ui-smol"], capture: { positions: "all" } });
  const page = await open("/compare?mode=layers&a=ui-smol&b=ui-neox&table=layers");
  await page
    .getByRole("columnheader", { name: /of ui-neox/ })
    .first()
    .waitFor();
  expect(await page.getByRole("alert").count()).toBe(0);
  expect(await axe(page)).toEqual([]);
});

test("a cache is added by searching for it", async () => {
  const page = await open(`/compare?cache=${ids[0]}`, { width: 360, height: 720 });
  await page.getByText("Choose at least two caches").waitFor();
  await page.getByLabel("Add a cache").fill("lighthouse");
  await page.getByRole("button", { name: /A lighthouse stands alone/ }).click();
  await page.getByRole("heading", { name: /cosine to/ }).waitFor();
  await expectSound(page);
});

test("a list goes on where the server has stopped counting", async () => {
  const input = Array.from({ length: 5_200 }, (_, i) => `a b ${i}`);
  await api().run({ model: NEOX, input, tags: ["ui-many"], capture: { layers: [0] }, priority: "bulk" });
  const page = await open("/caches?tag=ui-many");
  await page.getByText("At least 5\u202f000 in all.", { exact: false }).waitFor();
  const grid = page.getByRole("grid", { name: "Caches" });
  await expect
    .poll(
      async () => {
        await grid.evaluate((list) => (list.scrollTop = list.scrollHeight));
        return await grid.getAttribute("aria-rowcount");
      },
      { timeout: 30_000, interval: 100 },
    )
    .toBe("5200");
  await grid
    .getByText(/^a b \d+$/)
    .last()
    .waitFor();
  expect(await grid.getByRole("row").count()).toBeLessThan(60);
}, 90_000);
