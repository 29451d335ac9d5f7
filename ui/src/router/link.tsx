import type { ComponentChildren } from "preact";
import { go } from "./location";

interface LinkProps {
  to: string;
  class?: string;
  title?: string;
  tabIndex?: number;
  "aria-current"?: "page" | undefined;
  "aria-label"?: string;
  children?: ComponentChildren;
}

/** A link within the dashboard: `to` is an address made by `href`. A click does not load the page again. */
export function Link({ to, children, ...rest }: LinkProps) {
  const onClick = (event: MouseEvent) => {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    go(to);
  };
  return (
    <a {...rest} href={to} onClick={onClick}>
      {children}
    </a>
  );
}
