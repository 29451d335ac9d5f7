/** The map: its numbers are those of the API's own PCA, and its points can be read, chosen and opened. */
import type { Page } from "playwright-core";
import { beforeAll, expect, test } from "vitest";
import { api, axe, expectSound, HOSTILE, NEOX, open, SMOL } from "./harness";

const TAG = `map-${Date.now()}`;
const TEXTS: Record<string, string[]> = {
  good: ["I loved this film.", "What a wonderful play.", "The food was delicious.", HOSTILE],
  bad: ["I hated this film.", "What a boring play.", "The food was awful.", "The room was very dirty."],
  "<b>place</b>": ["Paris is in France.", "Rome is in Italy.", "Berlin is in Germany.", "Athens is in Greece."],
};
let caches: string[] = [];

beforeAll(async () => {
  const items = Object.entries(TEXTS).flatMap(([label, texts]) =>
    texts.map((text) => ({ text, label, tags: [TAG], metadata: { length: text.length, film: text.includes("film") } })),
  );
  const run = await api().run({ model: SMOL, items, capture: { hooks: ["resid_post"], layers: [0, 12, 20], positions: "all" } });
  caches = run.caches;
  await api().run({ model: NEOX, input: ["one", "two words", "and three words"], tags: [`${TAG}-neox`] });
});

const picture = (page: Page) => page.getByRole("application");

/** A number of the page: its minus sign is typographic. */
const number = (text: string) => Number(text.replace("−", "-"));

test("coordinates and variances are those of the API's PCA, at each layer and position", async () => {
  for (const [layer, position] of [
    [20, "last"],
    [12, "mean"],
  ] as const) {
    const name = `${TAG}-${layer}`;
    await api().post("/v1/directions", {
      body: { method: "pca", name, caches: { tags: [TAG] }, layers: [layer], position, k: 2, center: true },
    });
    const direction = await api().get("/v1/directions/{direction}", { params: { path: { direction: name } } });
    const page = await open(`/map?tag=${TAG}&layer=${layer}&position=${position}&table=map`);
    const table = page.getByRole("region", { name: "Coordinates of the caches" });
    await table.waitFor();
    const rows = await table
      .locator("tbody tr")
      .evaluateAll((all) => all.map((row) => [...row.children].map((cell) => cell.textContent)));
    expect(rows).toHaveLength(12);
    const ids = await table
      .locator("tbody a")
      .evaluateAll((all) => all.map((link) => (link as HTMLAnchorElement).pathname.split("/").pop()));
    for (const component of [0, 1]) {
      const projected = await api().post("/v1/projections", {
        body: {
          caches: ids as string[],
          layers: [layer],
          positions: position === "last" ? "last" : { mean: "all" },
          directions: [{ direction: name, component }],
          measures: ["dot"],
        },
      });
      const api_ = projected.values?.map(({ dot }) => (dot as number[][])[0]?.[0] as number) ?? [];
      const mean = api_.reduce((sum, value) => sum + value, 0) / api_.length;
      const shown = rows.map((row) => number(row[2 + component] as string));
      const sign = Math.sign(shown.reduce((sum, value, i) => sum + value * ((api_[i] as number) - mean), 0));
      // The API's vectors are stored as float32.
      for (const [i, value] of shown.entries()) expect(value * sign).toBeCloseTo((api_[i] as number) - mean, 3);
      const metrics = direction.vectors?.[component]?.metrics as { explained_variance: number } | undefined;
      const variance = shown.reduce((sum, value) => sum + value * value, 0) / (shown.length - 1);
      expect(variance / (metrics?.explained_variance ?? 0)).toBeCloseTo(1, 5);
    }
    await page.context().close();
  }
});

test("arrow keys read a point with its text, Enter opens its cache, and hostile text stays text", async () => {
  const page = await open(`/map?tag=${TAG}`);
  await picture(page).waitFor();
  expect(await picture(page).getAttribute("aria-label")).toMatch(/12 caches by their first two principal components\. PC1: \d/);
  await picture(page).focus();
  await page.keyboard.press("ArrowRight");
  const spoken = page.locator("output[aria-live]");
  await expect.poll(() => spoken.first().textContent()).toMatch(/PC1 −?[\d.]+, PC2 −?[\d.]+/);
  await page.getByRole("button", { name: /<b>place<\/b> 4/ }).waitFor();
  expect(await axe(page)).toEqual([]);
  await expectSound(page);
  await page.keyboard.press("Enter");
  await page.waitForURL(/\/ui\/caches\/[0-9a-f-]{36}$/);
  expect(caches).toContain(new URL(page.url()).pathname.split("/").pop());
});

test("a rectangle selects points, which can be mapped alone; the view is in the address", async () => {
  const page = await open(`/map?tag=${TAG}`);
  await picture(page).waitFor();
  const box = await picture(page).boundingBox();
  if (!box) throw new Error("no picture");
  await page.mouse.move(box.x + 62, box.y + 14);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width - 20, box.y + box.height - 44, { steps: 4 });
  await page.mouse.up();
  await page.getByText("12 caches selected").waitFor();
  await page.getByRole("button", { name: /good 4/ }).click();
  await page.getByText("4 caches selected").waitFor();
  await page.getByRole("button", { name: "Zoom to them" }).click();
  await page.getByText(/in sight/).waitFor();
  expect(new URL(page.url()).searchParams.get("zoom")).toMatch(/,/);
  await page.getByRole("link", { name: "Map only these" }).click();
  await page.getByText("4 chosen caches").waitFor();
  await expect.poll(() => picture(page).getAttribute("aria-label")).toMatch(/^4 caches/);
  await page.goBack();
  await page.getByText(/in sight/).waitFor();
  await page.getByRole("button", { name: "Show all" }).click();
  await page.getByLabel("Colour by").selectOption("metadata.length");
  await page.locator(".legend-unit", { hasText: "metadata: length" }).waitFor();
  expect(new URL(page.url()).searchParams.get("colour")).toBe("metadata.length");
});

test("the second family, by a tag that is typed", async () => {
  const page = await open("/map");
  await page.getByLabel("Tags").fill(`${TAG}-neox`);
  await page.getByLabel("Tags").press("Enter");
  await expect.poll(() => picture(page).getAttribute("aria-label")).toMatch(/^3 caches/);
  expect(new URL(page.url()).searchParams.get("tag")).toBe(`${TAG}-neox`);
});

test("nothing found, too few, and a cache that does not exist", async () => {
  const page = await open("/map?tag=no-such-tag");
  await page.getByText("No cache fits").waitFor();
  await page.goto(new URL(`/ui/map?cache=${caches[0]}&cache=${caches[1]}`, page.url()).href);
  await page.getByText("A map needs at least three caches, and 2 have this hook").waitFor();
  const gone = await open("/map?cache=00000000-0000-7000-8000-000000000000", { allow: /404/ });
  await gone.getByRole("alert").getByText("cache_not_found").waitFor();
});

test("on a phone, and in the dark", async () => {
  const page = await open(`/map?tag=${TAG}`, { width: 360, height: 720, theme: "dark" });
  await picture(page).waitFor();
  await expectSound(page);
  expect(await axe(page)).toEqual([]);
});
