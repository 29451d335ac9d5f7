import type { ComponentChildren } from "preact";

/** Title of a page, a line about what it shows, and its actions to the right. */
export function PageHeader({
  title,
  children,
  actions,
}: {
  title: ComponentChildren;
  children?: ComponentChildren;
  actions?: ComponentChildren;
}) {
  return (
    <header class="page-header">
      <div>
        <h1>{title}</h1>
        {children && <p class="soft">{children}</p>}
      </div>
      {actions && <div class="actions">{actions}</div>}
    </header>
  );
}
