/** Every curl command of the tour in the repository's README has its typed call, and both get the same bytes. */
import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";

import { createClient, readSafetensors } from "../../src/index.js";
import { ROOT } from "../unit/fixtures.js";
import { TestServer } from "./harness.js";
import { tour } from "./tour.js";

/** A request, however it was made. */
interface Sent {
  method: string;
  path: string;
  query: [string, string][];
  body: unknown;
}

let server: TestServer;
const folder = mkdtempSync(join(tmpdir(), "tour-"));

before(async () => {
  server = await TestServer.start({ isOpen: true });
});

after(async () => {
  await server?.stop();
  rmSync(folder, { recursive: true, force: true });
});

/** The shell blocks of the section with the tour. */
function script(): string {
  const readme = readFileSync(new URL("../../README.md", ROOT), "utf8");
  const section = /^## Five minutes with curl\n(.*?)^## /ms.exec(readme)?.[1] ?? "";
  const blocks = [...section.matchAll(/^```sh\n(.*?)^```/gms)].map(([, block]) => block);
  assert.ok(blocks.length > 5, "the tour is where it is expected");
  return `set -eu\n${blocks.join("")}`.replaceAll("http://127.0.0.1:8080", server.url);
}

/** Runs the tour with a `curl` that notes its arguments, a line each, and passes them on. */
async function runScript(): Promise<Sent[]> {
  const curl = execFileSync("sh", ["-c", "command -v curl"]).toString().trim();
  const log = join(folder, "log");
  const note = `require("fs").appendFileSync(${JSON.stringify(log)}, JSON.stringify(process.argv.slice(1)) + "\\n")`;
  writeFileSync(join(folder, "curl"), `#!/bin/sh\n'${process.execPath}' -e '${note}' -- "$@" && exec '${curl}' "$@"\n`);
  chmodSync(join(folder, "curl"), 0o755);
  const env = { ...process.env, PATH: `${folder}:${process.env.PATH}` };
  await promisify(execFile)("bash", ["-c", script()], { cwd: folder, env });
  return readFileSync(log, "utf8")
    .trim()
    .split("\n")
    .map((line) => ofCurl(JSON.parse(line) as string[]));
}

/** The request that a curl command makes. */
function ofCurl(words: string[]): Sent {
  let [method, url, body]: [string | undefined, string, unknown] = [undefined, "", undefined];
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    if (word.startsWith("http")) url = word;
    else if (word === "-X") method = words[++i];
    else if (word === "-d") body = JSON.parse(words[++i]!);
    else if (word === "--data-binary") body = fileOf(readFileSync(join(folder, words[++i]!.slice(1))));
    else if (word === "-H" || word === "-o") i++;
    else assert.equal(word, "-s", "an option that this test does not know");
  }
  return sent(method ?? (body === undefined ? "GET" : "POST"), url, body);
}

/** Says which tensors a file has. Each tour sends a cache of its own, whose ids and times are in the file too. */
function fileOf(bytes: Buffer): unknown {
  return Object.fromEntries([...readSafetensors(bytes).tensors].map(([name, { shape }]) => [name, shape]));
}

function sent(method: string, address: string, body: unknown): Sent {
  const url = new URL(address);
  return { method, path: url.pathname, query: [...url.searchParams].sort(), body };
}

/** With ids replaced by their order of appearance, since each tour makes its own caches. */
function numbered(requests: Sent[]): unknown {
  const ids: string[] = [];
  const text = JSON.stringify(requests).replace(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, (id) => {
    if (!ids.includes(id)) ids.push(id);
    return `id ${ids.indexOf(id)}`;
  });
  return JSON.parse(text);
}

test("the typed calls are the curl commands of the README", async () => {
  const byCurl = await runScript();
  const byClient: Sent[] = [];
  const recording = (url: string, init?: RequestInit) => {
    const { body, method = "GET", headers } = init ?? {};
    const isJson = new Headers(headers).get("content-type") === "application/json";
    const bytes = body instanceof ArrayBuffer ? Buffer.from(body) : undefined;
    byClient.push(sent(method, url, bytes && (isJson ? JSON.parse(bytes.toString()) : fileOf(bytes))));
    return fetch(url, init);
  };
  const answers = await tour(createClient({ baseUrl: server.url, fetch: recording }));

  assert.ok(byCurl.length > 20, "every command was noted");
  assert.deepEqual(numbered(byClient), numbered(byCurl));
  const layers = Buffer.from(answers.layers as ArrayBuffer);
  assert.ok(layers.equals(readFileSync(join(folder, "layers.npy"))), "the same values, bit for bit");
  for (const [name, answer] of Object.entries(answers)) assert.ok(answer, name);
  assert.equal((answers.refused as { code: string }).code, "layer_out_of_range");
});
