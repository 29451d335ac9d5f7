import type { Signal } from "@preact/signals";
import { chooseTheme, themeChoice, type ThemeChoice } from "../colour/theme";
import { Icon } from "../components/icons";
import { ROUTES } from "../pages/routes";
import { href } from "../router/location";
import { Link } from "../router/link";
import { apiKey, keyWanted } from "../server/key";

const NEXT: Record<ThemeChoice, ThemeChoice> = { system: "light", light: "dark", dark: "system" };

export function Navigation({ current, isOpen }: { current: string; isOpen: Signal<boolean> }) {
  return (
    <header class="nav">
      <div class="nav-top">
        <Link to={href("/")} class="nav-name">
          <svg class="nav-mark" viewBox="0 0 16 16" aria-hidden="true">
            <rect width="16" height="16" rx="3.5" />
            <path d="M3 11h2V5H3zm4 0h2V3H7zm4 0h2V7h-2z" />
          </svg>
          Residuum
        </Link>
        <button
          type="button"
          class="quiet nav-menu"
          aria-expanded={isOpen.value}
          aria-controls="nav-pages"
          onClick={() => {
            isOpen.value = !isOpen.value;
          }}
        >
          <Icon name="menu" /> Menu
        </button>
      </div>
      <nav id="nav-pages" class={isOpen.value ? "nav-pages open" : "nav-pages"} aria-label="Pages">
        {ROUTES.map(
          ({ pattern, nav }) =>
            nav && (
              <Link key={pattern} to={href(pattern)} aria-current={pattern === current ? "page" : undefined}>
                <Icon name={nav.icon} />
                {nav.label}
              </Link>
            ),
        )}
        <span class="nav-rest">
          <button type="button" class="quiet" onClick={() => chooseTheme(NEXT[themeChoice.value])}>
            <Icon name="theme" /> Theme: {themeChoice.value}
          </button>
          <button
            type="button"
            class="quiet"
            onClick={() => {
              keyWanted.value = true;
            }}
          >
            <Icon name="key" /> {apiKey.value ? "API key set" : "API key"}
          </button>
          <a href="/docs/">API reference</a>
        </span>
      </nav>
    </header>
  );
}
