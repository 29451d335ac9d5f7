/** Where the reader is: the path below `/ui` and the query, as signals. All that a view shows follows from them. */
import { computed, signal } from "@preact/signals";

export interface Place {
  /** Path below `/ui`, beginning with `/`. */
  readonly path: string;
  readonly query: URLSearchParams;
}

/** The folder that the page is served from. */
export const BASE = "/ui";

export function placeOf(pathname: string, search: string): Place {
  const below = pathname.startsWith(BASE) ? pathname.slice(BASE.length) : pathname;
  return { path: below.replace(/\/+$/, "") || "/", query: new URLSearchParams(search) };
}

const read = () => (typeof location === "undefined" ? placeOf(BASE, "") : placeOf(location.pathname, location.search));

const current = signal<Place>(read());

/** The place as it is now. */
export const place = computed(() => current.value);

/** Follows the back and forward buttons. Call once. */
export function followHistory(): void {
  addEventListener("popstate", () => {
    current.value = read();
  });
}

export type QueryValues = Record<string, string | number | boolean | readonly (string | number)[] | null | undefined>;

/** Adds values to a query; null, undefined, "" and false remove the name, lists repeat it. */
export function withValues(query: URLSearchParams, values: QueryValues): URLSearchParams {
  const next = new URLSearchParams(query);
  for (const [name, value] of Object.entries(values)) {
    next.delete(name);
    if (Array.isArray(value)) for (const one of value as readonly (string | number)[]) next.append(name, String(one));
    else if (value !== null && value !== undefined && value !== "" && value !== false) next.set(name, String(value));
  }
  return next;
}

/** Address of a path of the dashboard, such as `/caches`, with a query. For `href`. */
export function href(path: string, values: QueryValues = {}): string {
  const query = withValues(new URLSearchParams(), values).toString();
  return `${BASE}${path === "/" ? "/" : path}${query && `?${query}`}`;
}

/** Goes to an address made by {@link href}. */
export function go(address: string, { replace = false } = {}): void {
  const url = new URL(address, location.href);
  if (url.pathname + url.search !== location.pathname + location.search) {
    history[replace ? "replaceState" : "pushState"](null, "", url);
  }
  const before = current.value.path;
  current.value = read();
  if (current.value.path !== before) scrollTo(0, 0);
}

/**
 * Changes the query of the present place. By default the back button returns to the state before; `replace` for what changes
 * continuously, such as a slider or the text of a search.
 */
export function setQuery(values: QueryValues, { replace = false } = {}): void {
  const query = withValues(current.value.query, values).toString();
  go(`${BASE}${current.value.path}${query && `?${query}`}`, { replace });
}

/** One value of the query as text; reading it in a component follows it. */
export function queryText(name: string, fallback = ""): string {
  return current.value.query.get(name) ?? fallback;
}

/** One value of the query as a whole number; the fallback if it is none. */
export function queryInteger(name: string, fallback: number): number {
  const text = current.value.query.get(name);
  return text !== null && /^-?\d{1,9}$/.test(text) ? Number(text) : fallback;
}

/** All values of a name. */
export function queryList(name: string): string[] {
  return current.value.query.getAll(name);
}

/** One of some values; the first of them if the query has another or none. */
export function queryChoice<Value extends string>(name: string, values: readonly [Value, ...Value[]]): Value {
  const text = current.value.query.get(name);
  return values.find((value) => value === text) ?? values[0];
}
