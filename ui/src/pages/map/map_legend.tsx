/** What the colours and shapes of the points mean. A category is a button that selects its points. */
import { categorical, scaleFor, type Scale } from "../../colour/scale";
import type { Theme } from "../../colour/scale";
import { Legend } from "../../components/legend";
import { visible } from "../../format/tokens";
import type { Colouring } from "./colouring";
import { outline, type Shape, SHAPES } from "./scatter_drawing";

export interface Look {
  colours: string[];
  shapes: Shape[];
  scale?: Scale;
}

/** Grey, for points of no category. */
const NONE: Record<Theme, string> = { light: "#8a929c", dark: "#747e8a" };

export function lookOf(colouring: Colouring, shade: Theme): Look {
  if (colouring.kind === "numbers") {
    const scale = scaleFor(colouring.values, shade, { fromZero: false });
    const colours = colouring.values.map((value) => (Number.isNaN(value) ? NONE[shade] : scale.css(value)));
    return { colours, shapes: colours.map(() => "circle"), scale };
  }
  return {
    colours: colouring.of.map((i) => (i < 0 ? NONE[shade] : categorical(i, shade))),
    shapes: colouring.of.map((i) => (i < 0 ? "circle" : (SHAPES[i % SHAPES.length] as Shape))),
  };
}

export function MapLegend(props: {
  colouring: Colouring;
  look: Look;
  name: string;
  shade: Theme;
  onSelect: (category: number) => void;
}) {
  const { colouring, look, name, shade, onSelect } = props;
  if (colouring.kind === "numbers") {
    return (
      <div class="map-legend">
        {look.scale && <Legend scale={look.scale} unit={name} />}
        {colouring.missing > 0 && <Key colour={NONE[shade]} shape="circle" text={`without: ${colouring.missing}`} />}
      </div>
    );
  }
  const { categories, rest } = colouring;
  return (
    <div class="map-legend" role="group" aria-label={`Legend: ${name}`}>
      {categories.map((category, i) => (
        <button key={category.name} type="button" class="quiet map-key-button" title="Select these" onClick={() => onSelect(i)}>
          <Key
            colour={categorical(i, shade)}
            shape={SHAPES[i % SHAPES.length] as Shape}
            text={visibleName(category.name)}
            count={category.count}
          />
        </button>
      ))}
      {rest.points > 0 && (
        <Key
          colour={NONE[shade]}
          shape="circle"
          text={rest.values > 0 ? `${rest.values} others, or none` : `no ${name}`}
          count={rest.points}
        />
      )}
    </div>
  );
}

const visibleName = (name: string) => (name.length > 40 ? `${[...name].slice(0, 39).join("")}…` : name);

function Key({ colour, shape, text, count }: { colour: string; shape: Shape; text: string; count?: number }) {
  const points = outline(shape, 8, 8, 5);
  return (
    <span class="map-key">
      <svg viewBox="0 0 16 16" aria-hidden="true">
        {points ? (
          <polygon points={points.map((point) => point.join(",")).join(" ")} fill={colour} />
        ) : (
          <circle cx="8" cy="8" r="5" fill={colour} />
        )}
      </svg>
      <bdi>{text.trim() === "" ? visible(text) : text}</bdi>
      {count !== undefined && <span class="soft">{count}</span>}
    </span>
  );
}
