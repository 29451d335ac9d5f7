// Times the dashboard in Chromium: opening it, and the frames while a 30 × 500 heat map and a long list of caches are scrolled.
//
// usage: node test/measure.mjs URL        such as http://127.0.0.1:8080, with SmolLM2-135M as `smollm2-135m` and caches to list
import { chromium } from "playwright-core";

const [origin = "http://127.0.0.1:8080", model = "smollm2-135m"] = process.argv.slice(2);
const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu"],
});
const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });

const quantile = (values, q) => values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * q))];
const report = (name, frames) =>
    console.log(
        `${name}: ${frames.length} frames, median ${quantile(frames, 0.5).toFixed(1)} ms, 95 % ${quantile(frames, 0.95).toFixed(1)} ms`,
    );

/** Milliseconds of each frame, while the element is scrolled a step in each. */
const scroll = (selector, axis, step) =>
    page.evaluate(
        async ([selector, axis, step]) => {
            const element = document.querySelector(selector);
            const times = [];
            let last = await new Promise(requestAnimationFrame);
            for (let i = 0; i < 120; i++) {
                element[axis] += step;
                const now = await new Promise(requestAnimationFrame);
                times.push(now - last);
                last = now;
            }
            return times;
        },
        [selector, axis, step],
    );

for (let i = 0; i < 5; i++) {
    await page.goto(`${origin}/ui/caches`);
    const [paint, load] = await page.evaluate(() => [
        performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? Number.NaN,
        performance.getEntriesByType("navigation")[0].loadEventEnd,
    ]);
    console.log(`open ${i + 1}: first paint ${paint.toFixed(0)} ms, loaded ${load.toFixed(0)} ms`);
}

await page.locator(".virtual-row").first().waitFor();
const total = await page.locator('[role="grid"]').getAttribute("aria-rowcount");
report(`list of ${total} caches, 2,000 pixels a frame`, await scroll(".virtual-list", "scrollTop", 2_000));

const text = Array.from({ length: 700 }, (_, i) => ["the", "cat", "sat", "on", "a", "mat", "and"][i % 7]).join(" ");
const posted = await fetch(`${origin}/v1/runs?wait=60`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
        model,
        input: text,
        capture: { hooks: ["attn.pattern"], layers: [0], positions: { start: 0, end: 30 } },
    }),
});
const { caches } = await posted.json();
await page.goto(`${origin}/ui/caches/${caches[0]}/attention`);
const map = page.getByRole("application");
await map.waitFor();
console.log(await map.getAttribute("aria-label"));
report("heat map, scrolled", await scroll(".heatmap-box", "scrollLeft", 40));
const frames = await page.evaluate(async () => {
    const box = document.querySelector(".heatmap-box");
    const { left, top } = box.getBoundingClientRect();
    const times = [];
    let last = await new Promise(requestAnimationFrame);
    for (let i = 0; i < 120; i++) {
        box.dispatchEvent(
            new MouseEvent("mousemove", { bubbles: true, clientX: left + 120 + i * 8, clientY: top + 120 + (i % 20) * 10 }),
        );
        const now = await new Promise(requestAnimationFrame);
        times.push(now - last);
        last = now;
    }
    return times;
});
report("heat map, hovered", frames);
await browser.close();
