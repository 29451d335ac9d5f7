/** Servers for the tests: Residuum with a key, a proxy whose connections can be cut, and one for the pages of a browser. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { createServer as createHttpServer } from "node:http";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";

import { type Client, createClient } from "../../src/index.js";

export const MODEL = "smollm2-135m";
export const EIFFEL = "The Eiffel Tower is in the city of";

function setting(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`set ${name}: RESIDUUM_BINARY is the residuum program, RESIDUUM_MODEL a GGUF file of SmolLM2-135M`);
  return resolve(value);
}

/** What a server is started with. */
interface Options {
  corsOrigins?: string[];
  /** Whether the store has a key. */
  isOpen?: boolean;
}

/** A running server with a data folder of its own. */
export class TestServer {
  readonly url: string;
  /** A key with the scope `admin`; undefined if the server is open. */
  readonly apiKey: string | undefined;
  readonly #folder: string;
  readonly #arguments: string[];
  #process: ChildProcess | undefined;

  private constructor(folder: string, port: number, options: Options) {
    this.#folder = folder;
    this.url = `http://127.0.0.1:${port}`;
    const [binary, model] = [setting("RESIDUUM_BINARY"), setting("RESIDUUM_MODEL")];
    const data = ["--data-dir", join(folder, "data")];
    if (!options.isOpen) {
      const made = execFileSync(binary, ["keys", "create", ...data, "--name", "test", "--scope", "admin"], {
        env: environment(),
        stdio: ["ignore", "pipe", "ignore"],
      });
      this.apiKey = /rsd_\S+/.exec(made.toString())?.[0];
      if (!this.apiKey) throw new Error("`residuum keys create` printed no key");
    }
    const origins = (options.corsOrigins ?? []).flatMap((origin) => ["--cors-origin", origin]);
    const models = ["--model", `${MODEL}=${model}`, "--models-dir", dirname(model)];
    this.#arguments = ["serve", "--listen", `127.0.0.1:${port}`, ...data, ...models, ...origins];
  }

  /** A server that is ready. */
  static async start(options: Options = {}): Promise<TestServer> {
    const server = new TestServer(mkdtempSync(join(tmpdir(), "residuum-")), await freePort(), options);
    await server.begin();
    return server;
  }

  /** A name under which the model can be loaded once more. */
  static get modelSource(): string {
    return basename(setting("RESIDUUM_MODEL"));
  }

  client(url = this.url): Client {
    return createClient({ baseUrl: url, apiKey: this.apiKey });
  }

  /** Starts the process, or starts it again with the same data and port. */
  async begin(): Promise<void> {
    const log = openSync(join(this.#folder, "log"), "a");
    const child = spawn(setting("RESIDUUM_BINARY"), this.#arguments, { stdio: ["ignore", log, log], env: environment() });
    closeSync(log);
    this.#process = child;
    for (const deadline = Date.now() + 60_000; Date.now() < deadline; await new Promise((next) => setTimeout(next, 50))) {
      if (child.exitCode !== null) break;
      const answer = await fetch(`${this.url}/readyz`).catch(() => undefined);
      await answer?.arrayBuffer();
      if (answer?.ok) return;
    }
    const log_end = readFileSync(join(this.#folder, "log"), "utf8").slice(-2000);
    await this.stop();
    throw new Error(`the server did not become ready; its log ends:\n${log_end}`);
  }

  /** Ends the process without giving it time to tidy up. */
  async kill(): Promise<void> {
    const child = this.#process;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((done) => child.once("exit", done));
    child.kill("SIGKILL");
    await ended;
  }

  async stop(): Promise<void> {
    await this.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** Settings of a server in the caller's environment must not apply to this one. */
function environment(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("RESIDUUM_")));
}

async function listening(server: Server): Promise<number> {
  await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
  return (server.address() as AddressInfo).port;
}

async function freePort(): Promise<number> {
  const probe = createServer();
  const port = await listening(probe);
  await new Promise((closed) => probe.close(closed));
  return port;
}

/** Forwards connections to a server, and can cut them. */
export async function cuttingProxy(
  target: string,
): Promise<{ url: string; cut: () => void; n_open: () => number; close: () => void }> {
  const { hostname, port } = new URL(target);
  const open = new Set<Socket>();
  const server = createServer((incoming) => {
    const outgoing = connect(Number(port), hostname);
    for (const [from, to] of [
      [incoming, outgoing],
      [outgoing, incoming],
    ] as const) {
      from.on("error", () => undefined).on("close", () => (to.destroy(), open.delete(incoming)));
      from.pipe(to);
    }
    open.add(incoming);
  });
  const url = `http://127.0.0.1:${await listening(server)}`;
  const cut = () => open.forEach((socket) => socket.resetAndDestroy());
  return { url, cut, n_open: () => open.size, close: () => (server.close(), cut()) };
}

/** Serves the files that a page needs: `read` gives what is at a path, or undefined. */
export async function pages(
  read: (path: string) => { type: string; body: string | Buffer } | undefined,
): Promise<{ url: string; close: () => void }> {
  const server = createHttpServer((request, response) => {
    const file = read(new URL(request.url ?? "/", "http://localhost").pathname);
    if (file) response.writeHead(200, { "content-type": file.type }).end(file.body);
    else response.writeHead(404).end();
  });
  const url = `http://127.0.0.1:${await listening(server)}`;
  return { url, close: () => void (server.close(), server.closeAllConnections()) };
}
