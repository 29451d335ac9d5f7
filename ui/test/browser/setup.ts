/**
 * Starts what all browser tests share: a Residuum server with two models, and Chromium. With UI_PREVIEW=1 the page is served
 * from `dist` by Vite, so that a change of the page needs no new build of the server; without it, by the server.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { preview } from "vite";
import type { TestProject } from "vitest/node";

const root = fileURLToPath(new URL("../../..", import.meta.url));

declare module "vitest" {
  interface ProvidedContext {
    /** Address of the page's origin. */
    origin: string;
    /** Where Chromium listens. */
    browser: string;
  }
}

export async function freePort(): Promise<number> {
  return await new Promise((done, fail) => {
    const server = createServer();
    server.on("error", fail);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => done(typeof address === "object" && address ? address.port : 0));
    });
  });
}

export interface Server {
  url: string;
  stop: () => Promise<void>;
}

/** Starts the program that RESIDUUM_BINARY names, on a data folder of its own, with these further arguments. */
export async function startServer(given: string[], before?: (binary: string, data: string) => void): Promise<Server> {
  const binary = resolve(root, process.env.RESIDUUM_BINARY ?? "target/debug/residuum");
  const folder = mkdtempSync(join(tmpdir(), "residuum-ui-"));
  const data = join(folder, "data");
  before?.(binary, data);
  const port = await freePort();
  const log = openSync(join(folder, "log"), "a");
  const args = ["serve", "--listen", `127.0.0.1:${port}`, "--data-dir", data, ...given];
  const child: ChildProcess = spawn(binary, args, { stdio: ["ignore", log, log] });
  const url = `http://127.0.0.1:${port}`;
  const stop = async () => {
    if (child.exitCode === null) {
      const ended = new Promise((done) => child.once("exit", done));
      child.kill("SIGTERM");
      await ended;
    }
    rmSync(folder, { recursive: true, force: true });
  };
  for (const deadline = Date.now() + 90_000; Date.now() < deadline; await new Promise((next) => setTimeout(next, 100))) {
    if (child.exitCode !== null) break;
    const answer = await fetch(`${url}/readyz`).catch(() => undefined);
    await answer?.arrayBuffer();
    if (answer?.ok) return { url, stop };
  }
  const said = readFileSync(join(folder, "log"), "utf8");
  await stop();
  throw new Error(`the server did not start:\n${said}`);
}

/** The page from `dist`, and everything else from the server. The policy is that of the server. */
export async function startPreview(server: string): Promise<Server> {
  const paths = ["/v1", "/openai", "/healthz", "/readyz", "/metrics", "/docs", "/openapi"];
  const running = await preview({
    root: join(root, "ui"),
    logLevel: "error",
    preview: {
      port: await freePort(),
      host: "127.0.0.1",
      proxy: Object.fromEntries(paths.map((path) => [path, { target: server, changeOrigin: false }])),
      headers: {
        "content-security-policy":
          "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
      },
    },
  });
  return { url: (running.resolvedUrls?.local[0] ?? "").replace(/\/ui\/$/, ""), stop: () => running.close() };
}

export const MODELS = [
  "--model",
  `smollm2-135m=${join(root, "models/SmolLM2-135M-Instruct.Q4_1.gguf")}`,
  // A second family: tiny, seeded, with parallel attention and MLP.
  "--model",
  `tiny-neox=${join(root, "tests/goldens/gpt_neox/parallel")}`,
];

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const stops: (() => Promise<void>)[] = [];
  let origin = process.env.RESIDUUM_URL;
  if (!origin) {
    const server = await startServer(MODELS);
    stops.unshift(server.stop);
    origin = server.url;
  }
  if (process.env.UI_PREVIEW) {
    const page = await startPreview(origin);
    stops.unshift(page.stop);
    origin = page.url;
  }
  const browser = await chromium.launchServer({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  stops.unshift(() => browser.close());
  project.provide("origin", origin);
  project.provide("browser", browser.wsEndpoint());
  return async () => {
    for (const stop of stops) await stop();
  };
}
