// Times the dashboard in Chromium: opening it, and the frames while a long list of caches and two heat maps are scrolled and
// hovered: one of 30 × 500 cells, and one with a token in each cell, which takes longest to draw.
//
// usage: node test/measure.mjs URL [MODEL]        such as http://127.0.0.1:8080 smollm2-135m, with caches to list
import { chromium } from "playwright-core";

const [origin = "http://127.0.0.1:8080", model = "smollm2-135m"] = process.argv.slice(2);
const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu"],
});
const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });

// How long the page's own work takes in each frame, whatever the browser does besides.
await page.addInitScript(() => {
    const request = window.requestAnimationFrame.bind(window);
    window.worked = new Map();
    window.requestAnimationFrame = (callback) =>
        request((time) => {
            const start = performance.now();
            callback(time);
            window.worked.set(time, (window.worked.get(time) ?? 0) + performance.now() - start);
        });
});

const quantile = (values, q) => values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * q))];
const range = (values) => `median ${quantile(values, 0.5).toFixed(1)} ms, 95 % ${quantile(values, 0.95).toFixed(1)} ms`;
const report = (name, { frames, work }) =>
    console.log(`${name}: ${frames.length} frames, ${range(frames)}; work in a frame ${range(work)}`);

/** Milliseconds of each of 120 frames, and of the page's work in it. The element is scrolled or hovered a step in each. */
const times = (selector, step) =>
    page.evaluate(
        async ([selector, { axis, by, hover }]) => {
            const element = document.querySelector(selector);
            const { left, top } = element.getBoundingClientRect();
            const frames = [];
            const next = () => new Promise(requestAnimationFrame);
            let last = await next();
            window.worked.clear();
            for (let i = 0; i < 120; i++) {
                if (axis) element[axis] += by;
                if (hover) {
                    const at = { bubbles: true, clientX: left + 120 + i * 8, clientY: top + 120 + (i % 20) * 10 };
                    element.dispatchEvent(new MouseEvent("mousemove", at));
                }
                const now = await next();
                frames.push(now - last);
                last = now;
            }
            return { frames, work: [...window.worked.values()] };
        },
        [selector, step],
    );
const BOX = ".heatmap-box";
async function reportMap(name) {
    const map = page.getByRole("application");
    await map.waitFor({ timeout: 120_000 });
    console.log(await map.getAttribute("aria-label"));
    report(`${name}, scrolled`, await times(BOX, { axis: "scrollLeft", by: 10 }));
    report(`${name}, hovered`, await times(BOX, { hover: true }));
}

for (let i = 0; i < 5; i++) {
    await page.goto(`${origin}/ui/caches`);
    await page.waitForFunction(() => performance.getEntriesByName("first-contentful-paint").length > 0);
    const [paint, load] = await page.evaluate(() => [
        performance.getEntriesByName("first-contentful-paint")[0].startTime,
        performance.getEntriesByType("navigation")[0].loadEventEnd,
    ]);
    console.log(`open ${i + 1}: first paint ${paint.toFixed(0)} ms, loaded ${load.toFixed(0)} ms`);
}

await page.locator(".virtual-row").first().waitFor();
const total = await page.locator('[role="grid"]').getAttribute("aria-rowcount");
report(`list of ${total} caches, 2,000 pixels a frame`, await times(".virtual-list", { axis: "scrollTop", by: 2_000 }));

const text = Array.from({ length: 700 }, (_, i) => ["the", "cat", "sat", "on", "a", "mat", "and"][i % 7]).join(" ");
const post = async (input, capture) => {
    const posted = await fetch(`${origin}/v1/runs?wait=60`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ model, input, capture }),
    });
    return (await posted.json()).caches[0];
};
const attention = await post(text, { hooks: ["attn.pattern"], layers: [0], positions: { start: 0, end: 30 } });
await page.goto(`${origin}/ui/caches/${attention}/attention`);
await reportMap("heat map");
const lens = await post(text, { hooks: ["resid_post"], positions: { start: 0, end: 64 } });
await page.goto(`${origin}/ui/caches/${lens}/lens`);
await reportMap("heat map with tokens");
await browser.close();
