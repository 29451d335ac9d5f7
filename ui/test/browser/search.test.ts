/** The search: hits, scores and contexts are those of the API, for a text, a cache and a direction. */
import type { Page } from "playwright-core";
import { beforeAll, expect, test } from "vitest";
import { api, axe, expectSound, HOSTILE, NEOX, open, SMOL } from "./harness";

const TAG = `search-${Date.now()}`;
const TEXTS = [
  "The Eiffel Tower is in the city of Paris",
  "Big Ben stands in the city of London",
  "She baked a cake with sugar",
  "The stock market fell sharply",
  HOSTILE,
];
let caches: string[] = [];

beforeAll(async () => {
  const items = TEXTS.map((text, i) => ({ text, label: i < 2 ? "place" : "other" }));
  const run = await api().run({ model: SMOL, items, capture: { layers: [10, 20], positions: "all" }, tags: [TAG] });
  caches = run.caches;
  await api().run({ model: NEOX, input: ["one", "two words"], tags: [TAG], capture: { positions: "all" } });
});

const hits = (page: Page) => page.locator(".search-hit");
const scores = async (page: Page) => {
  const texts = await page.locator(".search-score").allTextContents();
  return texts.map((text) => Number(text.replace("−", "-")));
};

test("a text that is typed: the scores and tokens of the API, with the token marked", async () => {
  const page = await open(`/search?tag=${TAG}&layer=20&over=positions`);
  await page.getByText("What are you looking for?").waitFor();
  await page.getByRole("textbox", { name: "Text", exact: true }).fill("The Colosseum is in the city of");
  await page.keyboard.press("Enter");
  await hits(page).first().waitFor();
  const found = await api().post("/v1/search", {
    body: {
      query: { text: "The Colosseum is in the city of", model: SMOL },
      layer: 20,
      over: "positions",
      k: 10,
      filter: { tags: [TAG], model: SMOL },
    },
  });
  const wanted = found.results[0]?.hits ?? [];
  expect(await scores(page)).toEqual(wanted.map(({ score }) => Number(score.toPrecision(6))));
  const marked = await page.locator(".search-hit mark").allTextContents();
  expect(marked).toEqual(wanted.map(({ token }) => (token ?? "").replaceAll(" ", "·")));
  expect(await hits(page).first().textContent()).toContain("in the city");
  const links = await page.locator(".search-link").evaluateAll((all) => all.map((link) => (link as HTMLAnchorElement).href));
  expect(links.map((link) => new URL(link).pathname)).toEqual(wanted.map(({ cache }) => `/ui/caches/${cache}`));
  expect(new URL(page.url()).searchParams.get("text")).toBe("The Colosseum is in the city of");
  expect(await axe(page)).toEqual([]);
  await page.goBack();
  await page.getByText("What are you looking for?").waitFor();
});

test("from a cache, without itself; the metric changes the order; hostile text stays text", async () => {
  const page = await open(`/search?cache=${caches[4]}&tag=${TAG}&layer=10`);
  await hits(page).nth(3).waitFor();
  expect(await hits(page).count()).toBe(4);
  await page.getByRole("button", { name: "Distance" }).click();
  await page.getByText("smallest first").waitFor();
  const order = await scores(page);
  expect(order).toEqual([...order].sort((a, b) => a - b));
  const link = hits(page).first().getByRole("link", { name: "Find similar" });
  await link.click();
  await expect.poll(() => new URL(page.url()).searchParams.get("cache")).not.toBe(caches[4]);
  await expectSound(page);
});

test("a direction finds what it points at", async () => {
  await api().post("/v1/directions", {
    body: {
      method: "difference_of_means",
      name: TAG,
      positive: { tags: [TAG], label: "place" },
      negative: { tags: [TAG], label: "other" },
      layers: [20],
      position: "last",
    },
  });
  const page = await open(`/search?direction=${TAG}&tag=${TAG}`);
  await hits(page).first().waitFor();
  const wanted = await api().post("/v1/search", {
    body: { query: { direction: TAG }, layer: 20, k: 10, filter: { tags: [TAG], model: SMOL } },
  });
  expect(await scores(page)).toEqual(wanted.results[0]?.hits.map(({ score }) => Number(score.toPrecision(6))));
});

test("the second family has other layers, and its own caches", async () => {
  const page = await open(`/search?text=one&model=${NEOX}&tag=${TAG}&k=25`);
  await hits(page).nth(1).waitFor();
  expect(await hits(page).count()).toBe(2);
  await page.getByText(/blocks\.1\.hook_resid_post/).waitFor();
});

test("nothing stored, and a cache that does not exist", async () => {
  const page = await open("/search?text=one&tag=no-such-tag");
  await page.getByText("No cache fits").waitFor();
  const gone = await open("/search?cache=00000000-0000-7000-8000-000000000000", { allow: /404/ });
  await gone.getByRole("alert").getByText("cache_not_found").waitFor();
});

test("on a phone, and in the dark", async () => {
  const page = await open(`/search?cache=${caches[0]}&tag=${TAG}&over=positions`, { width: 360, height: 720, theme: "dark" });
  await hits(page).first().waitFor();
  await expectSound(page);
  expect(await axe(page)).toEqual([]);
});
