/** Light or dark: as the system says, unless the reader has chosen. */
import { computed, effect, signal } from "@preact/signals";
import type { Theme } from "./scale";

export type ThemeChoice = "system" | Theme;

const NAME = "residuum-theme";
const dark = typeof matchMedia === "undefined" ? undefined : matchMedia("(prefers-color-scheme: dark)");
const systemIsDark = signal(dark?.matches ?? false);
dark?.addEventListener("change", (event) => {
  systemIsDark.value = event.matches;
});

function stored(): ThemeChoice {
  try {
    const value = localStorage.getItem(NAME);
    return value === "light" || value === "dark" ? value : "system";
  } catch {
    return "system";
  }
}

export const themeChoice = signal<ThemeChoice>(stored());

/** The theme in use. */
export const theme = computed<Theme>(() => {
  if (themeChoice.value !== "system") return themeChoice.value;
  return systemIsDark.value ? "dark" : "light";
});

export function chooseTheme(choice: ThemeChoice): void {
  themeChoice.value = choice;
  try {
    if (choice === "system") localStorage.removeItem(NAME);
    else localStorage.setItem(NAME, choice);
  } catch {
    // Then the choice lasts as long as the page.
  }
}

/** Tells the stylesheet. Call once. */
export function applyTheme(): void {
  effect(() => {
    document.documentElement.dataset.theme = theme.value;
  });
}
