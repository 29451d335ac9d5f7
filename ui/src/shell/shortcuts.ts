/** `/` goes to the search box of the page, or to that of the caches where a page has none. */
import { go, href } from "../router/location";

export function followShortcuts(): () => void {
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
    event.preventDefault();
    const box = document.querySelector<HTMLInputElement>("main input[type=search]");
    if (box) box.focus();
    else {
      go(href("/caches"));
      requestAnimationFrame(() => document.querySelector<HTMLInputElement>("main input[type=search]")?.focus());
    }
  };
  addEventListener("keydown", onKeyDown);
  return () => removeEventListener("keydown", onKeyDown);
}

function isTyping(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
}
