import { expect, test } from "vitest";
import { axe, expectSound, open } from "./harness";

test("an unknown address says so and leads on", async () => {
  const page = await open("/nothing/here");
  await page.getByText("There is no page at this address").waitFor();
  await page.getByRole("link", { name: "Begin with a new run" }).click();
  expect(new URL(page.url()).pathname).toBe("/ui/");
  expect(await axe(page)).toEqual([]);
});

test("on a phone the navigation opens from a button, and closes with a choice", async () => {
  const page = await open("/", { width: 360, height: 720 });
  await expectSound(page);
  await page.getByRole("button", { name: "Menu" }).click();
  await page.getByRole("link", { name: "Caches" }).click();
  await page.waitForURL("**/ui/caches");
  expect(await page.getByRole("link", { name: "Compare" }).isVisible()).toBe(false);
  await page.goBack();
  expect(new URL(page.url()).pathname).toBe("/ui/");
});

test("the theme is the system's until one is chosen, and stays", async () => {
  const page = await open("/", { theme: "dark" });
  const theme = () => page.evaluate(() => document.documentElement.dataset.theme);
  expect(await theme()).toBe("dark");
  await page.getByRole("button", { name: /Theme/ }).click();
  expect(await theme()).toBe("light");
  await page.reload();
  expect(await theme()).toBe("light");
});
