/** What the colours of a scale mean: its ends, its middle, and the unit. */
import type { Scale } from "../colour/scale";
import { significant } from "../format/numbers";

export function Legend({
  scale,
  unit,
  format = significant,
}: {
  scale: Scale;
  unit: string;
  format?: (value: number) => string;
}) {
  const stops = Array.from({ length: 24 }, (_, i) => scale.min + ((scale.max - scale.min) * i) / 23);
  const ends = scale.kind === "diverging" ? [scale.min, 0, scale.max] : [scale.min, scale.max];
  return (
    <div class="legend">
      <div
        class="legend-bar"
        aria-hidden="true"
        style={{ background: `linear-gradient(to right, ${stops.map(scale.css).join(", ")})` }}
      />
      <div class="legend-ends">
        {ends.map((end, i) => (
          <span key={i}>{format(end)}</span>
        ))}
      </div>
      <span class="legend-unit">{unit}</span>
    </div>
  );
}
