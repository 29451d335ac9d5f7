/**
 * The views that are pictured: where each is, and what is done there first. A step that finds nothing to click is left out with
 * a word on the console, so that a changed page gives a plainer picture rather than none.
 */
import type { Locator, Page } from "playwright-core";
import { SMOL } from "../browser/harness";
import type { Demo } from "./demo";
import { IOI, LANDMARK } from "./texts";

export interface View {
  /** Name of the files in docs/images. */
  name: string;
  /** Address below /ui. */
  path: (demo: Demo) => string;
  /** The main action of the page. */
  prepare?: (page: Page, demo: Demo) => Promise<void>;
  /** Size of the window. */
  width?: number;
  height?: number;
}

const query = (values: Record<string, string | number | readonly string[]>) => {
  const given = Object.entries(values).flatMap(([name, value]) =>
    (Array.isArray(value) ? value : [value]).map((one) => [name, String(one)]),
  );
  return new URLSearchParams(given).toString();
};

/** Milliseconds for which a step waits for what it needs. */
const PATIENCE = 5_000;

async function found(page: Page, what: string, locator: Locator): Promise<Locator | undefined> {
  try {
    await locator.first().waitFor({ timeout: PATIENCE });
    return locator.first();
  } catch {
    console.warn(`${new URL(page.url()).pathname}: there is no ${what}`);
    return undefined;
  }
}

async function fill(page: Page, label: RegExp, text: string): Promise<void> {
  const field = await found(page, `field ${label}`, page.locator("main").getByRole("textbox", { name: label }));
  await field?.fill(text);
}

async function press(page: Page, selector: string, keys: readonly string[]): Promise<void> {
  const element = await found(page, selector, page.locator(selector));
  for (const key of keys) await element?.press(key);
}

export const VIEWS: readonly View[] = [
  {
    name: "home",
    path: () => `/?${query({ model: SMOL })}`,
    prepare: async (page) => await fill(page, /text/i, LANDMARK),
  },
  { name: "runs", path: () => "/runs" },
  { name: "caches", path: () => "/caches" },
  { name: "cache", path: ({ landmark }) => `/caches/${landmark}` },
  { name: "lens", path: ({ landmark }) => `/caches/${landmark}/lens?${query({ follow: " Paris" })}`, height: 1180 },
  { name: "attention", path: ({ landmark }) => `/caches/${landmark}/attention?${query({ layer: 5, head: 3 })}` },
  { name: "compare", path: ({ groups }) => `/compare?${query({ cache: [...groups.slice(0, 4), ...groups.slice(20, 24)] })}` },
  {
    name: "patching",
    path: () => `/patching?${query({ model: SMOL, ...IOI, run: 1 })}`,
    prepare: async (page) => {
      await page.getByRole("button", { name: "Sweep" }).waitFor({ timeout: 60_000 });
    },
    height: 1120,
  },
  {
    name: "steer",
    path: ({ direction }) => `/steer?${query({ model: SMOL, direction, layer: 14, text: "The play was", strength: 1 })}`,
    prepare: async (page) => {
      await page.getByRole("link", { name: "Its cache" }).nth(1).waitFor({ timeout: 60_000 });
    },
  },
  {
    name: "map",
    path: () => `/map?${query({ tag: "demo", layer: 20 })}`,
    prepare: async (page) => {
      await press(page, ".scatter-box", ["ArrowRight", "ArrowUp"]);
    },
    height: 1040,
  },
  {
    name: "search",
    path: () => `/search?${query({ text: "The Escorial is in the city of", layer: 20, over: "positions", tag: "demo" })}`,
  },
  { name: "features", path: ({ sae, landmark }) => `/features?${query({ sae, cache: landmark })}` },
  { name: "server", path: () => "/server" },
];
