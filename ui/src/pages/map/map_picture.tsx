/** The scatter plot with its legend, its table, and what can be done with chosen points. */
import { useSignal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { theme } from "../../colour/theme";
import { CopyAs } from "../../components/copy_as";
import { DataTable, Picture } from "../../components/data_table";
import { Select } from "../../components/fields";
import { Empty } from "../../components/problem";
import { counted, exact, percent, significant } from "../../format/numbers";
import { pythonArguments, pythonClient, pythonOf } from "../../format/snippets";
import { preview } from "../../format/tokens";
import { go, href, queryText, setQuery } from "../../router/location";
import { Link } from "../../router/link";
import { colouringOf, usualWay, waysToColour } from "./colouring";
import { bodyOf, type Conditions } from "../../server/conditions";
import { comparisonOf, type Item, type Mapped, type MapRequest } from "./data";
import { lookOf, MapLegend } from "./map_legend";
import { Scatter } from "./scatter";
import { domainFrom, domainOf, domainText, within } from "./scatter_layout";

/** More ids than this do not fit into an address. */
const MOST_IN_ADDRESS = 150;

export interface MapPictureProps {
  items: readonly Item[];
  mapped: Mapped;
  request: MapRequest;
  /** Another layer is being computed. */
  isStale: boolean;
  conditions: Conditions;
  /** The caches that the address names; empty if conditions found them. */
  chosen: readonly string[];
}

export function MapPicture({ items, mapped, request, isStale, conditions, chosen }: MapPictureProps) {
  const shade = theme.value;
  const selected = useSignal<ReadonlySet<number>>(new Set());
  const points = useMemo(() => {
    const known = new Map(items.map((item) => [item.id, item]));
    return mapped.ids.map((id) => known.get(id)).filter((item) => item !== undefined);
  }, [items, mapped]);
  const idsKey = mapped.ids.join();
  useEffect(() => {
    selected.value = new Set();
  }, [idsKey]);
  const ways = useMemo(() => waysToColour(points), [points]);
  const asked = queryText("colour");
  const way = ways.some(({ value }) => value === asked) ? asked : usualWay(points);
  const colouring = useMemo(() => colouringOf(points, way), [points, way]);
  const look = useMemo(() => lookOf(colouring, shade), [colouring, shade]);
  const none = useMemo(() => new Float64Array(points.length), [points.length]);
  const x = mapped.scores[0] ?? none;
  const y = mapped.scores[1] ?? none;
  const plotted = useMemo(
    () => ({ x, y, colours: look.colours, shapes: look.shapes, isEdged: look.scale !== undefined }),
    [x, y, look],
  );
  const whole = useMemo(() => domainOf(x, y), [x, y]);
  const zoom = domainFrom(queryText("zoom"));
  const domain = zoom ?? whole;

  if (points.length < 3 || mapped.scores.length === 0)
    return <TooFew request={request} found={points.length} items={items.length} />;
  const axis = (i: number) =>
    mapped.share[i] === undefined ? `PC${i + 1}: no variance` : `PC${i + 1}: ${percent(mapped.share[i])} of the variance`;
  const wayName = ways.find(({ value }) => value === way)?.label ?? way;
  const describe = (i: number) => {
    const { text, label } = points[i] as Item;
    const lines = [preview(text ?? "(no text)", 220), label ? `label ${label}` : "", valueText(colouring, i, wayName)];
    lines.push(`PC1 ${significant(x[i] as number)}, PC2 ${significant(y[i] as number)}`);
    return lines.filter(Boolean).join("\n");
  };
  const toggle = (index: number) => {
    const next = new Set(selected.peek());
    if (!next.delete(index)) next.add(index);
    selected.value = next;
  };
  const ids = [...selected.value].map((i) => (points[i] as Item).id);
  return (
    <>
      <Picture
        name="map"
        title={title(request)}
        controls={<Select label="Colour by" value={way} options={ways} onChange={(value) => setQuery({ colour: value })} />}
        picture={
          <div class={isStale ? "map-stale" : undefined} aria-busy={isStale}>
            <MapLegend
              colouring={colouring}
              look={look}
              name={wayName}
              shade={shade}
              onSelect={(category) => {
                if (colouring.kind !== "categories") return;
                selected.value = new Set(points.map((_, i) => i).filter((i) => colouring.of[i] === category));
              }}
            />
            <Scatter
              label={`${counted(points.length, "cache")} by their first two principal components. ${axis(0)}, ${axis(1)}`}
              points={plotted}
              xLabel={axis(0)}
              yLabel={axis(1)}
              domain={domain}
              describe={describe}
              selected={selected.value}
              onOpen={(index) => go(href(`/caches/${(points[index] as Item).id}`))}
              onToggle={toggle}
              onBrush={(indices, _, add) => {
                selected.value = new Set(add ? [...selected.peek(), ...indices] : indices);
              }}
              height={innerWidth < 700 ? 340 : 520}
            />
          </div>
        }
        table={() => <MapTable points={points} mapped={mapped} wayName={wayName} valueOf={(i) => valueOf(colouring, i)} />}
        note={
          <>
            {counted(points.length, "cache")}. Together the two axes have{" "}
            {percent((mapped.share[0] ?? 0) + (mapped.share[1] ?? 0))} of the variance; both have the same unit. Drag to select,
            click to open.
            {points.length < items.length && ` ${counted(items.length - points.length, "cache")} without this hook left out.`}
          </>
        }
      />
      <div class="map-actions" role="status">
        <span>{ids.length > 0 ? `${counted(ids.length, "cache")} selected` : "Nothing selected"}</span>
        {ids.length > 0 && (
          <>
            <button
              type="button"
              onClick={() => {
                const chosenX = [...selected.peek()].map((i) => x[i] as number);
                const chosenY = [...selected.peek()].map((i) => y[i] as number);
                setQuery({ zoom: domainText(domainOf(chosenX, chosenY)) });
              }}
            >
              Zoom to them
            </button>
            {ids.length >= 3 && ids.length <= MOST_IN_ADDRESS && (
              <Link class="button" to={mapOf(ids, request)}>
                Map only these
              </Link>
            )}
            {ids.length >= 2 && ids.length <= MOST_IN_ADDRESS && (
              <Link class="button" to={href("/compare", { cache: ids })}>
                Compare
              </Link>
            )}
            {ids.length === 1 && (
              <>
                <Link class="button" to={href(`/caches/${ids[0]}`)}>
                  Open
                </Link>
                <Link class="button" to={href("/search", { cache: ids[0], layer: request.layer, hook: request.hook })}>
                  Find similar
                </Link>
              </>
            )}
            <button type="button" class="quiet" onClick={() => (selected.value = new Set())}>
              Clear
            </button>
          </>
        )}
        <span class="spacer" />
        {zoom && (
          <>
            <span class="soft">{within(zoom, x, y).length} in sight</span>
            <button type="button" class="quiet" onClick={() => setQuery({ zoom: null })}>
              Show all
            </button>
          </>
        )}
      </div>
      <Commands request={request} conditions={conditions} chosen={chosen} />
    </>
  );
}

function title({ hook, layer, position }: MapRequest): string {
  const where = layer === undefined ? hook : `${hook}, layer ${layer}`;
  return `${where}, ${position === "last" ? "last token" : "mean of the tokens"}`;
}

const mapOf = (ids: readonly string[], { hook, layer, position, normalize }: MapRequest) =>
  href("/map", { cache: ids, hook, layer, position, normalize });

function valueOf(colouring: ReturnType<typeof colouringOf>, i: number): string {
  if (colouring.kind === "numbers") return exact(colouring.values[i]);
  return colouring.categories[colouring.of[i] ?? -1]?.name ?? "";
}

function valueText(colouring: ReturnType<typeof colouringOf>, i: number, name: string): string {
  const value = valueOf(colouring, i);
  return name === "label" || value === "" ? "" : `${name} ${value}`;
}

function TooFew({ request, found, items }: { request: MapRequest; found: number; items: number }) {
  if (found < 3) {
    return (
      <Empty title={`A map needs at least three caches, and ${found === 0 ? "none has" : `${found} have`} this hook`}>
        {items > found ? `${counted(items, "cache")} fit the conditions. Choose a layer or a hook that they captured.` : ""}{" "}
        <Link to={href("/")}>Capture more texts</Link>
      </Empty>
    );
  }
  return <Empty title="All these vectors are equal">At {title(request)} there is nothing that tells the caches apart.</Empty>;
}

function MapTable(props: { points: readonly Item[]; mapped: Mapped; wayName: string; valueOf: (i: number) => string }) {
  const { points, mapped, wayName, valueOf: value } = props;
  const names = mapped.scores.map((_, i) => `PC${i + 1} (${percent(mapped.share[i] ?? 0)})`);
  return (
    <DataTable
      caption="Coordinates of the caches"
      columns={["text", wayName, ...names]}
      length={points.length}
      isNumber={(column) => column > 1}
      row={(i) => [
        <Link key="text" to={href(`/caches/${(points[i] as Item).id}`)}>
          <bdi>{preview((points[i] as Item).text ?? (points[i] as Item).id, 90)}</bdi>
        </Link>,
        <bdi key="value">{value(i)}</bdi>,
        // The components are computed to ten digits.
        ...mapped.scores.map((score) => significant(score[i] as number, 8)),
      ]}
    />
  );
}

function Commands(props: { request: MapRequest; conditions: Conditions; chosen: readonly string[] }) {
  const { request, conditions, chosen } = props;
  const caches = chosen.length > 0 ? request.ids : { ...bodyOf(conditions), hooks: [request.full] };
  const { hook, layer, position, normalize } = request;
  const given = pythonArguments({
    metrics: "dot",
    hook: hook === "resid_post" ? undefined : hook,
    layers: layer,
    position,
    center: "mean",
    normalize: normalize || undefined,
  });
  const python = [
    `${pythonClient(location.origin)}\nimport numpy as np\n`,
    `found = client.compare(${pythonOf(caches)}, ${given})`,
    'variances, vectors = np.linalg.eigh(found["dot"][0])',
    "xy = vectors[:, :-3:-1] * variances[:-3:-1] ** 0.5",
  ].join("\n");
  return <CopyAs request={{ method: "POST", path: "/v1/comparisons", body: comparisonOf(caches, request) }} python={python} />;
}
