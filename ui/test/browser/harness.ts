/** What the browser tests share: a page whose console must stay clean, the API beside it, and axe-core. */
import AxeBuilder from "@axe-core/playwright";
import { type Browser, chromium, type Page } from "playwright-core";
import { type Client, createClient } from "../../../clients/typescript/src/index";
import { afterAll, afterEach, expect, inject } from "vitest";

export const SMOL = "smollm2-135m";
export const NEOX = "tiny-neox";
/** HTML, a right-to-left override, Hebrew and Arabic: none of it may become markup, or turn the page around. */
export const HOSTILE = `<img src=x onerror="window.hacked=1"><script>window.hacked=1</script> שלום \u202e abc مرحبا &amp; "quotes"`;

let browser: Browser | undefined;
/** Complaints of the pages that are open: errors of scripts and of the console, and requests to other hosts. */
let complaints: string[] = [];
const opened: Page[] = [];

export interface OpenOptions {
  theme?: "light" | "dark";
  width?: number;
  height?: number;
  /** Another server than the shared one. */
  origin?: string;
  /** Complaints that this test brings about on purpose. */
  allow?: RegExp;
}

/** The API of the shared server. */
export function api(): Client {
  return createClient({ baseUrl: inject("origin") });
}

/** Opens an address below `/ui` in a fresh profile. The test fails if the page complains. */
export async function open(path: string, options: OpenOptions = {}): Promise<Page> {
  const { theme = "light", width = 1280, height = 900, origin = inject("origin"), allow } = options;
  browser ??= await chromium.connect(inject("browser"));
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: theme, reducedMotion: "reduce" });
  const page = await context.newPage();
  opened.push(page);
  const complain = (text: string) => {
    if (!allow?.test(text)) complaints.push(text);
  };
  page.on("pageerror", (error) => complain(String(error)));
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complain(message.text());
  });
  page.on("request", (request) => {
    if (!/^(data|blob):/.test(request.url()) && !request.url().startsWith(`${origin}/`))
      complain(`foreign request ${request.url()}`);
  });
  await page.goto(`${origin}/ui${path}`);
  return page;
}

/** Serious and critical findings of axe-core, of the page as it is now. */
export async function axe(page: Page): Promise<string[]> {
  const { violations } = await new AxeBuilder({ page }).analyze();
  return violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" | ")}`);
}

/** Whether text from users has become markup, and whether the page is wider than its window. */
export async function expectSound(page: Page): Promise<void> {
  expect(await page.evaluate(() => (window as { hacked?: number }).hacked)).toBeUndefined();
  const [wide, inner] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth] as const);
  expect(wide, "the page scrolls sideways").toBeLessThanOrEqual(inner);
}

afterEach(async () => {
  for (const page of opened.splice(0)) await page.context().close();
  const said = complaints;
  complaints = [];
  expect(said, "errors in the console").toEqual([]);
});

afterAll(async () => {
  await browser?.close();
  browser = undefined;
});
