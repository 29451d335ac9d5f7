/** Icons, drawn with the colour of the text around them. */
const PATHS = {
  home: "M2.5 8 8 3l5.5 5M4.5 7v6h7V7",
  runs: "M3 4h10M3 8h10M3 12h6",
  caches: "M8 2.5 13.5 5 8 7.5 2.5 5zM2.5 8 8 10.5 13.5 8M2.5 11 8 13.5 13.5 11",
  compare: "M3 13V5m4 8V3m4 10V8M2 13.5h12",
  patching: "M3 3h4v4H3zM9 3h4v4H9zM3 9h4v4H3zM9 9h4v4H9z",
  steer: "M3 11c3 0 3-6 6-6h4M10.5 2.5 13 5l-2.5 2.5M3 5h2",
  map: "M3 13 3 3M3 13h10M6 9.5h.01M8 6h.01M11 8h.01M10 4h.01M6.5 11h.01",
  search: "M7 11.5a4.5 4.5 0 1 0 0-9 4.5 4.5 0 0 0 0 9zM10.5 10.5 14 14",
  features: "M8 2.5v11M2.5 8h11M4 4l8 8M12 4l-8 8",
  server: "M2.5 3.5h11v4h-11zM2.5 8.5h11v4h-11zM5 5.5h.01M5 10.5h.01",
  theme: "M8 2.5a5.5 5.5 0 1 0 0 11zM8 2.5a5.5 5.5 0 0 1 0 11",
  key: "M10 9a3 3 0 1 0-2.8-2L2.5 11.5v2h2v-1.5H6V10.5l1.2-1.7",
  menu: "M2.5 4.5h11M2.5 8h11M2.5 11.5h11",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 16 16" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}
