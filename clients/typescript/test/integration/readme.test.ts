/** The examples of this package's README: one program, compiled as a user would, run, and compared with what it says. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { ROOT } from "../unit/fixtures.js";
import { TestServer } from "./harness.js";

const run = promisify(execFile);
const path = (name: string) => fileURLToPath(new URL(name, ROOT));

test("the examples of the README compile, run and print what they say", async () => {
  const readme = readFileSync(path("README.md"), "utf8");
  const program = [...readme.matchAll(/^```ts\n(.*?)^```/gms)].map(([, block]) => block).join("");
  const expected = [...program.matchAll(/console\.log\(.*\); \/\/ (.*)$/gm)].map(([, output]) => output);
  assert.ok(expected.length > 15);
  assert.equal(expected.length, program.split("console.log(").length - 1, "every line that prints says what");

  mkdirSync(path("build/readme"), { recursive: true });
  writeFileSync(path("build/readme/readme.ts"), program);
  const options = [
    "--strict",
    "--target",
    "es2022",
    "--module",
    "nodenext",
    "--types",
    "node",
    "--noUnusedLocals",
    "--skipLibCheck",
  ];
  await run(process.execPath, [path("node_modules/typescript/bin/tsc"), ...options, path("build/readme/readme.ts")]).catch(
    (error: { stdout: string }) => {
      assert.fail(error.stdout);
    },
  );

  const server = await TestServer.start({ isOpen: true });
  try {
    const compiled = path("build/readme/readme.js");
    writeFileSync(compiled, readFileSync(compiled, "utf8").replaceAll("http://127.0.0.1:8080", server.url));
    const { stdout } = await run(process.execPath, [compiled]);
    assert.deepEqual(stdout.trimEnd().split("\n"), expected);
  } finally {
    await server.stop();
  }
});
