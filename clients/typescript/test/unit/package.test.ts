/** The package as npm would publish it: what is in it, and that others can compile and run against it. */
import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { ROOT } from "./fixtures.js";

const run = promisify(execFile);
const root = fileURLToPath(ROOT);
const folder = mkdtempSync(join(tmpdir(), "consumer-"));
let files: string[];

const CONSUMER = `
import { createClient, readNpy, ResiduumError, type Cache, type Client, type Run, type Tensor } from "residuum";
const client: Client = createClient({ baseUrl: "http://127.0.0.1:1", apiKey: "k", retries: 0 });
export async function f(): Promise<[Run, Cache, Tensor]> {
  const run = await client.run({ model: "m", input: "x" });
  const cache = await client.get("/v1/caches/{id}", { params: { path: { id: run.caches[0] ?? "" } } });
  return [run, cache, await client.tensor(cache.id, "h")];
}
console.log(typeof readNpy, new ResiduumError({ status: 404, code: "c", detail: "d" }).code);
`;

before(() => {
  // The build that is being tested must not be replaced meanwhile.
  const packed = execFileSync("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", folder], {
    cwd: root,
    stdio: ["ignore", "pipe", "ignore"],
  });
  const [{ filename, files: named }] = JSON.parse(packed.toString()) as [{ filename: string; files: { path: string }[] }];
  files = named.map(({ path }) => path);
  mkdirSync(join(folder, "node_modules/residuum"), { recursive: true });
  execFileSync("tar", ["xzf", join(folder, filename), "--strip-components", "1", "-C", join(folder, "node_modules/residuum")]);
  for (const name of ["openapi-fetch", "openapi-typescript-helpers", "@types", "undici-types"]) {
    symlinkSync(join(root, "node_modules", name), join(folder, "node_modules", name));
  }
  writeFileSync(join(folder, "package.json"), '{"type": "module"}');
  writeFileSync(join(folder, "consumer.ts"), CONSUMER);
});

after(() => rmSync(folder, { recursive: true, force: true }));

test("holds what is needed and nothing else", () => {
  assert.ok(files.includes("README.md") && files.includes("dist/index.js") && files.includes("dist/index.d.ts"));
  assert.deepEqual(
    files.filter(
      (file) => !/^(dist|src)\/\w+\.(js|ts|d\.ts|js\.map|d\.ts\.map)$|^README\.md$|^LICENSE-\w+$|^package\.json$/.test(file),
    ),
    [],
  );
});

const TSC = join(root, "node_modules/typescript/bin/tsc");

/** Compiles the consumer; the program that results is `consumer.js`. */
async function compile(options: Record<string, unknown>): Promise<void> {
  const compilerOptions = { strict: true, noUncheckedIndexedAccess: true, target: "es2022", ...options };
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["consumer.ts"] }));
  await run(process.execPath, [TSC, "-p", folder]).catch((error: { stdout: string }) => assert.fail(error.stdout));
}

test("compiles with a browser's types and a bundler's resolution", async () => {
  await compile({
    module: "esnext",
    moduleResolution: "bundler",
    lib: ["es2022", "dom"],
    types: [],
    skipLibCheck: true,
    noEmit: true,
  });
});

test("compiles with Node's types and resolution, its own types checked too, and runs", async () => {
  await compile({ module: "nodenext", lib: ["es2022"], types: ["node"], exactOptionalPropertyTypes: true });
  const { stdout } = await run(process.execPath, ["consumer.js"], { cwd: folder });
  assert.equal(stdout, "function c\n");
});
