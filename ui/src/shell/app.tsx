/** The frame around every page: navigation, messages about the server, and the page for the address. */
import { useSignal } from "@preact/signals";
import { Component, type ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { Empty, ProblemNote } from "../components/problem";
import { ROUTES, type Route } from "../pages/routes";
import { href, place } from "../router/location";
import { Link } from "../router/link";
import { match, type Params } from "../router/match";
import { KeyDialog, LostServer } from "./messages";
import { Navigation } from "./navigation";
import { followShortcuts } from "./shortcuts";

interface Found {
  route: Route;
  params: Params;
}

function find(path: string): Found | undefined {
  for (const route of ROUTES) {
    const params = match(route.pattern, path);
    if (params) return { route, params };
  }
  return undefined;
}

export function App() {
  const { path } = place.value;
  const found = find(path);
  const title = found?.route.title ?? "Not found";
  const main = useRef<HTMLElement>(null);
  const isMenuOpen = useSignal(false);
  const before = useRef(path);
  useEffect(followShortcuts, []);
  useEffect(() => {
    document.title = `${title} · Residuum`;
    isMenuOpen.value = false;
    // A new page begins at its top for the keyboard, too.
    if (before.current !== path) main.current?.focus({ preventScroll: true });
    before.current = path;
  }, [path, title]);
  return (
    <div class="frame">
      <a class="skip" href="#main">
        Skip to the page
      </a>
      <Navigation current={found?.route.under ?? path} isOpen={isMenuOpen} />
      <main id="main" ref={main} tabIndex={-1}>
        <LostServer />
        <Boundary key={path}>
          {found ? (
            <found.route.page params={found.params} />
          ) : (
            <Empty title="There is no page at this address">
              <Link to={href("/")}>Begin with a new run</Link>
            </Empty>
          )}
        </Boundary>
      </main>
      <KeyDialog />
    </div>
  );
}

/** A fault of a page is shown in its place; the rest goes on. */
class Boundary extends Component<{ children: ComponentChildren }, { error?: unknown }> {
  override state: { error?: unknown } = {};

  static override getDerivedStateFromError(error: unknown) {
    return { error };
  }

  override componentDidCatch(error: unknown) {
    console.error(error);
  }

  override render() {
    if (this.state.error === undefined) return this.props.children;
    return <ProblemNote error={this.state.error} onRetry={() => this.setState({ error: undefined })} />;
  }
}
