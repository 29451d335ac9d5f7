import { defineConfig } from "vitest/config";

/** Takes the pictures of the documentation: see test/screenshots. */
export default defineConfig({
  test: {
    include: ["test/screenshots/take.ts"],
    fileParallelism: false,
    maxWorkers: 1,
    testTimeout: 120_000,
    hookTimeout: 300_000,
  },
});
