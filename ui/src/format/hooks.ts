/** Names of hooks, and which of them a cache has. */
import type { Schemas } from "../server/catalogue";

/** The short name of a hook, as a run takes it: `attn.pattern` of `blocks.3.attn.hook_pattern`. Names outside the blocks stay as they are. */
export function shortName(hook: string): string {
  const inBlock = /^blocks\.\d+\.(.*)$/.exec(hook)?.[1];
  return inBlock === undefined ? hook : withoutPrefix(inBlock);
}

/** `hook_resid_post` as `resid_post`, `attn.hook_z` as `attn.z`: the API names a hook so without its layer. */
export function withoutPrefix(name: string): string {
  return name.replace(/(^|\.)hook_/, "$1");
}

export interface HookLayers {
  /** As the API takes it beside `layers`: `resid_post`, `attn.z`; a full name for a hook outside the blocks. */
  short: string;
  /** Layers with their full names, ascending; empty for a hook outside the blocks. */
  layers: readonly { layer: number; full: string }[];
}

/** Hooks with one vector for each position, the usual one first. Attention maps and expert indices have none. */
export function vectorHooks(hooks: readonly Pick<Schemas["CacheHook"], "hook" | "axes">[]): HookLayers[] {
  const found = new Map<string, { layer: number; full: string }[]>();
  for (const { hook, axes } of hooks) {
    if (axes.some((axis) => axis === "k_pos" || axis === "top_k")) continue;
    const parts = /^blocks\.(\d+)\.(.+)$/.exec(hook);
    const short = shortName(hook);
    const layers = found.get(short) ?? [];
    if (parts) layers.push({ layer: Number(parts[1]), full: hook });
    found.set(short, layers);
  }
  const all = [...found].map(([short, layers]) => ({ short, layers: layers.sort((a, b) => a.layer - b.layer) }));
  const rank = ({ short }: HookLayers) => (short === "resid_post" ? 0 : 1);
  return all.sort((a, b) => rank(a) - rank(b));
}

/** The layer of a list that is nearest to a wanted one; two thirds of the way up for none. */
export function layerNear(layers: readonly number[], wanted: number | undefined): number | undefined {
  if (wanted === undefined) return layers[Math.floor((layers.length * 2) / 3)];
  return layers.reduce<number | undefined>((best, layer) => {
    return best === undefined || Math.abs(layer - wanted) < Math.abs(best - wanted) ? layer : best;
  }, undefined);
}
