import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/** The server that `npm run dev` sends requests to. */
const server = process.env.RESIDUUM_URL ?? "http://127.0.0.1:8080";
const proxy = Object.fromEntries(
  // Without `changeOrigin: false` requests would seem to come from a page of another origin.
  ["/v1", "/openai", "/healthz", "/readyz", "/metrics", "/docs", "/openapi"].map((path) => [
    path,
    { target: server, changeOrigin: false },
  ]),
);

export default defineConfig({
  base: "/ui/",
  resolve: {
    alias: {
      residuum: here("../clients/typescript/src/index.ts"),
      "openapi-fetch": here("node_modules/openapi-fetch"),
    },
  },
  server: { proxy },
  preview: { proxy },
  build: {
    // Three files with fixed names, which the server embeds. It sends an ETag, so that a new version is seen at once.
    target: "es2022",
    modulePreload: false,
    cssCodeSplit: false,
    assetsInlineLimit: 0,
    rollupOptions: {
      output: {
        entryFileNames: "app.js",
        assetFileNames: "app[extname]",
        codeSplitting: false,
      },
    },
  },
  test: {
    include: ["test/unit/**/*.test.{ts,tsx}"],
  },
});
