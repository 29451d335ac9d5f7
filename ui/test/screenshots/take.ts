/**
 * Takes docs/images/NAME-light.png and NAME-dark.png of every view, or of those that SCREENSHOTS names. Run by
 * scripts/screenshots.sh. A view that shows a problem fails, and so does a picture of more than 150 kB.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createClient } from "../../../clients/typescript/src/index";
import { MODELS, type Server, startPreview, startServer } from "../browser/setup";
import { type Demo, makeDemo } from "./demo";
import { type View, VIEWS } from "./views";

const MOST_BYTES = 150_000;
const folder = process.env.SCREENSHOT_DIR ?? fileURLToPath(new URL("../../../docs/images", import.meta.url));
const wanted = (process.env.SCREENSHOTS ?? "").split(/\s+/).filter(Boolean);
const views = VIEWS.filter(({ name }) => wanted.length === 0 || wanted.includes(name));

let browser: Browser;
let origin: string;
let demo: Demo;
const stops: (() => Promise<void>)[] = [];

beforeAll(async () => {
  const unknown = wanted.filter((name) => !VIEWS.some((view) => view.name === name));
  if (unknown.length > 0)
    throw new Error(`there is no view ${unknown.join(", ")}; there are ${VIEWS.map(({ name }) => name).join(", ")}`);
  const server: Server = await startServer([...MODELS, "--max-store-bytes", "1000000000"]);
  stops.unshift(server.stop);
  origin = server.url;
  if (process.env.UI_PREVIEW) {
    const page = await startPreview(server.url);
    stops.unshift(page.stop);
    origin = page.url;
  }
  demo = await makeDemo(createClient({ baseUrl: server.url }));
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--font-render-hinting=none", "--disable-lcd-text"],
  });
  stops.unshift(() => browser.close());
  mkdirSync(folder, { recursive: true });
});

afterAll(async () => {
  for (const stop of stops) await stop();
});

/** Waits until nothing loads any more: no line says so, and nothing is marked as being computed. */
async function settle(page: Page): Promise<void> {
  await page.locator("main h1").first().waitFor();
  // Twice: what was loaded first may ask for more.
  for (let i = 0; i < 2; i++) {
    await page.waitForTimeout(500);
    await page.waitForFunction(() => !document.querySelector("main .loading, main [aria-busy=true]"), undefined, {
      timeout: 60_000,
    });
  }
  await page.waitForTimeout(200);
}

async function take(context: BrowserContext, view: View): Promise<Buffer> {
  const page = await context.newPage();
  const errors: string[] = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  await page.goto(`${origin}/ui${view.path(demo)}`);
  await settle(page);
  if (view.prepare) {
    await view.prepare(page, demo);
    await settle(page);
  }
  const problems = await page.locator("main .problem").allTextContents();
  expect([...errors, ...problems], `${view.name} shows a problem`).toEqual([]);
  return await page.screenshot({ scale: "css" });
}

test.each(views.flatMap((view) => (["light", "dark"] as const).map((theme) => ({ name: view.name, theme, view }))))(
  "$name, $theme",
  async ({ name, theme, view }) => {
    const { width = 1280, height = 860 } = view;
    const context = await browser.newContext({ viewport: { width, height }, colorScheme: theme, reducedMotion: "reduce" });
    try {
      // 256 colours are enough for these pages, and a third of the size.
      const file = execFileSync("pngquant", ["--speed", "1", "--strip", "-"], { input: await take(context, view) });
      writeFileSync(join(folder, `${name}-${theme}.png`), file);
      expect(file.length, `${name}-${theme}.png is too large`).toBeLessThanOrEqual(MOST_BYTES);
    } finally {
      await context.close();
    }
  },
);
