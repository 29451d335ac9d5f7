/** Patching, steering, and features of an autoencoder. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createClient, writeSafetensors } from "../../../clients/typescript/src/index";
import { exact, significant } from "../../src/format/numbers";
import { api, axe, expectSound, NEOX, open, SMOL } from "./harness";
import { MODELS, type Server, startPreview, startServer } from "./setup";

const IOI = {
  clean: "When John and Mary went to the store, John gave a drink to",
  corrupt: "When John and Mary went to the store, Mary gave a drink to",
  answer: " Mary",
  against: " John",
};
const query = (values: Record<string, string>) => new URLSearchParams(values).toString();

test("a sweep fills the map with the API's numbers", async () => {
  const page = await open("/patching");
  await page.getByRole("button", { name: /Fill in an example/ }).click();
  await page.getByText("14 tokens, 1 of them different.").waitFor();
  await page.getByRole("button", { name: "Layers × heads" }).click();
  await page.getByRole("button", { name: "Sweep" }).click();
  await page.getByRole("button", { name: "Sweep" }).waitFor({ timeout: 50_000 });
  const found = await api().patching.run({ model: SMOL, ...IOI, sweep: { hook: "attn.z", heads: "each", layers: [29] } });
  await page.getByRole("button", { name: "As table" }).click();
  const row = page.getByRole("row").nth(1);
  await row.waitFor();
  const cells = await row.getByRole("cell").allTextContents();
  expect(cells[2]).toBe(exact((found.values as number[][])[0]?.[0]));
  expect(cells[3]).toBe(exact((found.effect as number[][])[0]?.[0]));
  expect(await axe(page)).toEqual([]);
}, 90_000);

test("texts of different lengths, and answers of several tokens, are explained before anything is sent", async () => {
  const page = await open(`/patching?${query({ ...IOI, corrupt: "When Mary", answer: "Mississippi River" })}`, {
    width: 360,
    height: 720,
  });
  await page.getByText("Both need equally many").waitFor();
  await page.getByText("one token is needed").waitFor();
  expect(await page.getByRole("button", { name: "Sweep" }).isDisabled()).toBe(true);
  await expectSound(page);
});

test("the second family can be patched; a sweep in an address runs at once", async () => {
  const page = await open(`/patching?${query({ model: NEOX, clean: "a b c", corrupt: "a c c", answer: "b", run: "1" })}`, {
    theme: "dark",
  });
  await page.getByRole("application", { name: /Effect of patching/ }).waitFor();
  expect(await page.getByRole("alert").allTextContents()).toEqual([]);
});

test("another metric than the logit difference is the API's, although a second token is named", async () => {
  const page = await open(`/patching?${query({ ...IOI, over: "heads" })}`);
  await page.getByText("14 tokens, 1 of them different.").waitFor();
  await page.getByLabel("Metric").selectOption("probability");
  await page.getByText("For the logit difference only").waitFor();
  await page.getByRole("button", { name: "Sweep" }).click();
  await page.getByText(/Clean run/).waitFor({ timeout: 40_000 });
  expect(await page.getByRole("alert").allTextContents()).toEqual([]);
  const { clean, corrupt, answer } = IOI;
  const body = { model: SMOL, clean, corrupt, answer, sweep: { hook: "attn.z", heads: "each" as const, layers: [29] } };
  const found = await api().patching.run(body);
  await page.getByText(`Clean run ${significant(found.clean ?? Number.NaN)}`).waitFor();
  await page.getByRole("button", { name: "Stop" }).click();
  await page.getByText(/Stopped: \d+ of 30 layers are done/).waitFor();
}, 60_000);

test("a hook that a model lacks, and a corrupt text that is refused, are said", async () => {
  const small = { model: NEOX, clean: "a b c", corrupt: "a c c", answer: "b", hook: "resid_mid" };
  let page = await open(`/patching?${query(small)}`);
  await page.getByText("tiny-neox has no resid_mid").waitFor();
  expect(await page.getByRole("button", { name: "Sweep" }).isDisabled()).toBe(true);
  await page.getByLabel("Hook").selectOption("mlp_out");
  await page.getByRole("button", { name: "Sweep" }).click();
  await page.getByRole("application", { name: /Effect of patching hook_mlp_out/ }).waitFor();
  expect(await page.getByLabel("Hook").locator("option").allTextContents()).not.toContain("resid_mid");

  page = await open(`/patching?${query(IOI)}`, { allow: /status of 4/ });
  await page.route("**/v1/tokenize", (route) =>
    (route.request().postData() ?? "").includes("refused")
      ? route.fulfill({ status: 422, json: { title: "Refused", status: 422, code: "too_many_tokens", detail: "so it is" } })
      : route.continue(),
  );
  await page.getByLabel(/Corrupt text/).fill("refused");
  await page.getByRole("alert").getByText("too_many_tokens").waitFor();
});

test("a direction that is not there is said, not replaced by another", async () => {
  const run = await api().run({ model: SMOL, input: ["good", "bad"] });
  const [positive, negative] = [[run.caches[0] as string], [run.caches[1] as string]];
  await api().post("/v1/directions", { body: { name: "ui-taken", method: "difference_of_means", positive, negative } });
  const page = await open("/steer?text=Hello&tokens=4&direction=nonesuch");
  await page.getByText("There is no direction nonesuch for smollm2-135m").waitFor();
  expect(await page.getByRole("region", { name: / at layer / }).count()).toBe(0);
  await page.getByRole("combobox", { name: "Direction" }).selectOption("ui-taken");
  await page.getByRole("region", { name: /ui-taken at layer / }).waitFor();
  await page.getByText("Make a direction from two sets of texts").click();
  await page.getByRole("button", { name: "Fill in an example" }).click();
  await page.getByLabel("Name").fill("ui-taken");
  await page.getByText("There is a direction of this name").waitFor();
  expect(await page.getByRole("button", { name: "Make the direction" }).isDisabled()).toBe(true);
});

test("a direction from tags is added at its own hook, and its length is compared with the residual stream's", async () => {
  for (const [tag, input] of [
    ["ui-warm", ["so warm", "hot"]],
    ["ui-cold", ["so cold", "icy"]],
  ] as const) {
    await api().run({ model: SMOL, input: [...input], tags: [tag], capture: { hooks: ["resid_post", "attn_out", "embed"] } });
  }
  const page = await open("/steer?text=Once+upon+a+time&tokens=4&strength=-2");
  const details = page.getByText("Make a direction from two sets of texts");
  await details.waitFor();
  const source = page.getByRole("button", { name: "Tags of caches" });
  if (!(await source.isVisible())) await details.click();
  await source.click();
  const make = page.getByRole("button", { name: "Make the direction" });
  await page.getByLabel("Name").fill("ui-warmth");
  await page.getByLabel("Tag of those that have it").fill("ui-warm");
  await page.getByLabel("Tag of those that lack it").fill("ui-warm");
  await page.getByText("Both sets are the same").waitFor();
  expect(await make.isDisabled()).toBe(true);
  await page.getByLabel("Tag of those that lack it").fill("ui-cold");
  expect(await axe(page)).toEqual([]);
  await make.click();
  await page.getByRole("region", { name: /ui-warmth at layer 15/ }).waitFor({ timeout: 20_000 });

  const made = await api().get("/v1/directions/{direction}", { params: { path: { direction: "ui-warmth" } } });
  expect([made.provenance.n_positive, made.provenance.n_negative, made.hook]).toEqual([2, 2, "hook_resid_post"]);
  const norm = Number(made.vectors?.find(({ layer }) => layer === 15)?.metrics.norm);
  const plain = await api().run({
    model: SMOL,
    input: "Once upon a time",
    generate: { max_new_tokens: 4, seed: 0 },
    capture: { hooks: ["resid_post"], layers: [15], positions: "all" },
  });
  const tensor = await api().tensor(plain.caches[0] as string, "blocks.15.hook_resid_post");
  const width = tensor.shape.at(-1) as number;
  const lengths = Array.from({ length: tensor.size / width }, (_, row) =>
    Math.hypot(...(tensor.data as Float32Array).subarray(row * width, (row + 1) * width)),
  );
  const rest = lengths.slice(1).sort((a, b) => a - b);
  const median = ((rest[(rest.length - 1) >> 1] as number) + (rest[rest.length >> 1] as number)) / 2;
  await page
    .getByText(`Subtracted from every token: a vector of length ${significant(2 * norm)} (2 × ${significant(norm)}),`)
    .waitFor();
  await page.getByText(`${significant((2 * norm) / median, 3)} times the length of the residual stream at layer 15`).waitFor();

  for (const hook of ["attn_out", "embed"]) {
    const body = { name: `ui-${hook}`, method: "difference_of_means" as const, hook };
    await api().post("/v1/directions", { body: { ...body, positive: { tags: ["ui-warm"] }, negative: { tags: ["ui-cold"] } } });
    const at = await open(`/steer?text=Once+upon+a+time&tokens=4&strength=3&direction=ui-${hook}`);
    const side = at.getByRole("region", {
      name: hook === "embed" ? /ui-embed at embed$/ : /ui-attn_out at attn_out of layer 15/,
    });
    await side.getByRole("link", { name: "Its cache" }).waitFor({ timeout: 20_000 });
    const id = (await side.getByRole("link", { name: "Its cache" }).getAttribute("href"))?.split("/").pop() as string;
    const { provenance } = await api().get("/v1/caches/{id}", { params: { path: { id } } });
    const [change] = provenance.interventions as { hooks: string[] }[];
    expect(change?.hooks).toEqual([hook === "embed" ? "hook_embed" : "blocks.15.hook_attn_out"]);
    expect(await at.getByRole("slider", { name: "Layer" }).count()).toBe(hook === "embed" ? 0 : 1);
  }
}, 90_000);

test("a moved slider leaves one run of the steered side; sliders have names", async () => {
  const run = await api().run({ model: SMOL, input: ["up", "down"] });
  const [positive, negative] = [[run.caches[0] as string], [run.caches[1] as string]];
  await api().post("/v1/directions", { body: { name: "ui-moved", method: "difference_of_means", positive, negative } });
  const start = new Date().toISOString();
  const page = await open("/steer?text=Once+upon+a+time&direction=ui-moved&strength=0&tokens=200");
  const slider = page.getByRole("slider", { name: /Strength/ });
  await slider.focus();
  // Each change comes about when the request of the one before is on its way.
  for (let i = 0; i < 10; i++) {
    await page.waitForTimeout(296 + 3 * i);
    await page.keyboard.press("ArrowRight");
  }
  expect(new URL(page.url()).searchParams.get("strength")).toBe("2.5");
  await page.waitForTimeout(700);
  const { items } = await api().get("/v1/runs", { params: { query: { limit: 50 } } });
  const going = items.filter(({ status, created_at }) => ["queued", "running"].includes(status) && created_at >= start);
  // The baseline and the last of the steered ones.
  expect(going.length).toBeLessThanOrEqual(2);
}, 40_000);

test("a direction is made, steers a continuation, and the pair is saved", async () => {
  const page = await open("/steer?text=When+I+opened+the+letter,+I+felt&tokens=6&strength=3");
  const details = page.getByText("Make a direction from two sets of texts");
  await details.waitFor();
  if (!(await page.getByRole("button", { name: "Fill in an example" }).isVisible())) await details.click();
  await page.getByRole("button", { name: "Fill in an example" }).click();
  await page.getByLabel("Name").fill("ui-delight");
  await page.getByRole("button", { name: "Make the direction" }).click();
  await page.getByRole("region", { name: /ui-delight/ }).waitFor({ timeout: 40_000 });
  const plain = page.getByRole("region", { name: "By itself" });
  await plain.getByRole("link", { name: "Its cache" }).waitFor({ timeout: 40_000 });
  const steered = page.getByRole("region", { name: /ui-delight/ });
  await steered.getByRole("link", { name: "Its cache" }).waitFor({ timeout: 40_000 });
  const layer = Number(/layer (\d+)/.exec((await steered.getByRole("heading").textContent()) ?? "")?.[1]);
  const expected = await api().run({
    model: SMOL,
    input: "When I opened the letter, I felt",
    generate: { max_new_tokens: 6, seed: 0 },
    interventions: [{ op: "add", layers: layer, direction: { direction: "ui-delight" }, strength: 3 }],
  });
  expect((await steered.locator(".steer-text").textContent())?.trim()).toBe(expected.completions?.[0]?.text.trim());
  await page.getByRole("button", { name: "Save the pair" }).click();
  await page.getByRole("link", { name: "Compare the two" }).waitFor();
  const id = (await steered.getByRole("link", { name: "Its cache" }).getAttribute("href"))?.split("/").pop() as string;
  const saved = await api().get("/v1/caches/{id}", { params: { path: { id } } });
  expect([saved.tags, saved.label, saved.expires_at]).toEqual([["steering"], "ui-delight 3", null]);
  expect(await axe(page)).toEqual([]);
}, 120_000);

test("a server without autoencoders says how to serve one", async () => {
  const page = await open("/features", { width: 360, height: 720 });
  await page.getByText("This server has no sparse autoencoder").waitFor();
  await expectSound(page);
  expect(await axe(page)).toEqual([]);
});

let server: Server | undefined;
let folder: string;
let origin: string;

/** A small seeded autoencoder in SAELens's form: random unit vectors, tied. */
function writeSae(path: string): void {
  const [d, features] = [576, 64];
  let state = 7;
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32 - 0.5;
  };
  const decoder = Float32Array.from({ length: features * d }, random);
  for (let f = 0; f < features; f++) {
    const row = decoder.subarray(f * d, (f + 1) * d);
    const norm = Math.hypot(...row);
    row.forEach((value, i) => (row[i] = value / norm));
  }
  const encoder = Float32Array.from(
    { length: features * d },
    (_, i) => decoder[(i % features) * d + Math.floor(i / features)] as number,
  );
  const tensors = {
    W_enc: { shape: [d, features], data: encoder },
    W_dec: { shape: [features, d], data: decoder },
    b_enc: { shape: [features], data: new Float32Array(features) },
    b_dec: { shape: [d], data: new Float32Array(d) },
  };
  mkdirSync(path, { recursive: true });
  writeFileSync(join(path, "sae_weights.safetensors"), new Uint8Array(writeSafetensors(tensors)));
  const cfg = {
    architecture: "standard",
    d_in: d,
    d_sae: features,
    hook_name: "blocks.12.hook_resid_post",
    model_name: "smollm2",
    prepend_bos: false,
  };
  writeFileSync(join(path, "cfg.json"), JSON.stringify(cfg));
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "residuum-sae-"));
  writeSae(folder);
  server = await startServer([...MODELS.slice(0, 2), "--sae", `tiny=${SMOL}:${folder}`]);
  origin = process.env.UI_PREVIEW ? (await startPreview(server.url)).url : server.url;
});

afterAll(async () => {
  await server?.stop();
  rmSync(folder, { recursive: true, force: true });
});

test("features of a cache and the contexts of one are the API's", async () => {
  const own = createClient({ baseUrl: origin });
  const run = await own.run({ model: SMOL, input: "The Eiffel Tower is in the city of", capture: { positions: "all" } });
  const cache = run.caches[0] as string;
  const found = await own.post("/v1/caches/{id}/features", { params: { path: { id: cache } }, body: { sae: "tiny", top_k: 12 } });
  const page = await open(`/features?cache=${cache}&table=features`, { origin });
  const row = page.getByRole("row").nth(1);
  await row.waitFor();
  const first = found.positions.find(({ top }) => top.length > 0);
  expect((await row.getByRole("cell").allTextContents()).slice(1)).toEqual([
    String(first?.top[0]?.feature),
    exact(first?.top[0]?.activation),
  ]);
  const feature = first?.top[0]?.feature as number;
  await page.getByRole("spinbutton", { name: "Feature" }).fill(String(feature));
  await page.getByRole("heading", { name: `Feature ${feature}`, exact: true }).waitFor();
  const tokens = await own.post("/v1/saes/{id}/tokens", {
    params: { path: { id: "tiny" } },
    body: { features: [feature], k: 12, context: 10, skip_first: 1 },
  });
  await expect.poll(() => page.locator(".feature-hits li").count()).toBe(tokens.features[0]?.hits.length);
  expect(await axe(page)).toEqual([]);
  await page.goto(`${origin}/ui/caches/${cache}?colour=feature&feature=${feature}`);
  await page.getByRole("heading", { name: `Feature ${feature} of tiny` }).waitFor();
});
