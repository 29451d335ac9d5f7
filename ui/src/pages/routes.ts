/** The pages, their addresses below `/ui`, and what the navigation shows. */
import type { ComponentType } from "preact";
import type { IconName } from "../components/icons";
import { AttentionPage } from "./attention/attention_page";
import { CachePage } from "./cache/cache_page";
import { CachesPage } from "./caches/caches_page";
import { ComparePage } from "./compare/compare_page";
import { FeaturesPage } from "./features/features_page";
import { HomePage } from "./home/home_page";
import { LensPage } from "./lens/lens_page";
import { MapPage } from "./map/map_page";
import { PatchingPage } from "./patching/patching_page";
import { RunPage } from "./runs/run_page";
import { RunsPage } from "./runs/runs_page";
import { SearchPage } from "./search/search_page";
import { ServerPage } from "./server/server_page";
import { SteerPage } from "./steer/steer_page";

export interface PageProps {
  params: Record<string, string>;
}

export interface Route {
  pattern: string;
  /** Title of the window. */
  title: string;
  page: ComponentType<PageProps>;
  /** Where it stands in the navigation. */
  nav?: { label: string; icon: IconName };
  /** The entry of the navigation that is marked while this page is shown. */
  under?: string;
}

export const ROUTES: readonly Route[] = [
  { pattern: "/", title: "New run", page: HomePage, nav: { label: "New run", icon: "home" } },
  { pattern: "/runs", title: "Runs", page: RunsPage, nav: { label: "Runs", icon: "runs" } },
  { pattern: "/runs/:id", title: "Run", page: RunPage, under: "/runs" },
  { pattern: "/caches", title: "Caches", page: CachesPage, nav: { label: "Caches", icon: "caches" } },
  { pattern: "/caches/:id", title: "Cache", page: CachePage, under: "/caches" },
  { pattern: "/caches/:id/lens", title: "Logit lens", page: LensPage, under: "/caches" },
  { pattern: "/caches/:id/attention", title: "Attention", page: AttentionPage, under: "/caches" },
  { pattern: "/compare", title: "Compare", page: ComparePage, nav: { label: "Compare", icon: "compare" } },
  { pattern: "/patching", title: "Patching", page: PatchingPage, nav: { label: "Patching", icon: "patching" } },
  { pattern: "/steer", title: "Steer", page: SteerPage, nav: { label: "Steer", icon: "steer" } },
  { pattern: "/map", title: "Map", page: MapPage, nav: { label: "Map", icon: "map" } },
  { pattern: "/search", title: "Search", page: SearchPage, nav: { label: "Search", icon: "search" } },
  { pattern: "/features", title: "Features", page: FeaturesPage, nav: { label: "Features", icon: "features" } },
  { pattern: "/server", title: "Server", page: ServerPage, nav: { label: "Server", icon: "server" } },
];
