/** Layers as people type them: `all`, `12`, `0,6,12:20`, `0:30:5`, `-1`. */

export type ParsedLayers = { layers: number[] | "all" | undefined } | { fault: string };

/** Ranges are half-open, as in Python; negative numbers count from the last layer. Undefined for an empty text. */
export function parseLayers(text: string, nLayers: number | undefined): ParsedLayers {
  const trimmed = text.trim();
  if (trimmed === "") return { layers: undefined };
  if (trimmed === "all") return { layers: "all" };
  const found = new Set<number>();
  for (const part of trimmed.split(/[\s,]+/).filter(Boolean)) {
    const range = /^(-?\d*):(-?\d*)(?::(\d+))?$/.exec(part);
    if (range) {
      if (nLayers === undefined) return { fault: "Ranges need a model." };
      const at = (given: string | undefined, otherwise: number) => {
        if (!given) return otherwise;
        const value = Number(given);
        return value < 0 ? value + nLayers : value;
      };
      const step = Number(range[3] ?? 1);
      if (step === 0) return { fault: `The step of “${part}” is zero.` };
      const end = at(range[2], nLayers);
      if (end > nLayers) return { fault: `“${part}” goes beyond the last layer, ${nLayers - 1}.` };
      for (let layer = at(range[1], 0); layer < end; layer += step) found.add(layer);
    } else if (/^-?\d+$/.test(part)) {
      const value = Number(part);
      const layer = value < 0 && nLayers !== undefined ? value + nLayers : value;
      if (nLayers !== undefined && (layer < 0 || layer >= nLayers))
        return { fault: `There is no layer ${part}: they are 0 to ${nLayers - 1}.` };
      found.add(layer);
    } else return { fault: `“${part}” is neither a layer nor a range such as 12:20.` };
  }
  if (found.size === 0) return { fault: "No layer is in these ranges." };
  return { layers: [...found].sort((a, b) => a - b) };
}
