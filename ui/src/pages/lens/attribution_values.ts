/** Parts of a logit, in the order in which they are shown. */
import type { Schemas } from "../../server/catalogue";

export type Attributed = Schemas["Attribution"];
export type Part = Attributed["parts"][number];

/** Embeddings, as the catalogues of models have them, and what a run calls them. Which of them there are depends on the family. */
const EMBEDDINGS: readonly [hook: string, name: string][] = [
  ["hook_embed", "embed"],
  ["hook_pos_embed", "pos_embed"],
  ["embed_ln.hook_out", "embed_ln.out"],
];

/** What to capture for the parts of a logit by heads, of a model with these hooks. */
export function hooksOfParts(hooks: readonly { hook: string }[]): string[] {
  const names = new Set(hooks.map(({ hook }) => hook));
  const embeddings = EMBEDDINGS.filter(([hook]) => names.has(hook)).map(([, name]) => name);
  return [...embeddings, "resid_post", "attn_out", "attn.z", "mlp_out"];
}

/** A part in a few words: `MLP 29`, `Head 23.4`, `Attention 3`, or its own name. */
export function partName({ kind, layer, head, name }: Part): string {
  if (layer == null) return name.replace(/^hook_/, "");
  if (kind === "mlp") return `MLP ${layer}`;
  if (kind === "attention") return `Attention ${layer}`;
  if (kind === "head") return `Head ${layer}.${head}`;
  if (kind === "attention_bias") return `Attention bias ${layer}`;
  return `${name}`;
}

/** The largest parts by size, or all in the order of the pass. */
export function shownParts(parts: readonly Part[], order: "size" | "pass", most: number): Part[] {
  if (order === "pass") return [...parts];
  const size = ({ value }: Part) => Math.abs(value ?? 0);
  return [...parts].sort((a, b) => size(b) - size(a)).slice(0, most);
}
