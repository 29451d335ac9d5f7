/** The hooks of a model by their short names, in groups that a reader knows. */
import { shortName } from "../../format/hooks";
import type { ReadyModel, Schemas } from "../../server/catalogue";

export interface HookChoice {
  /** What a run takes: `resid_post`, `attn.pattern`, or a full name outside the blocks. */
  name: string;
  /** Its shape for one input, such as `pos × d_model 576`. */
  shape: string;
  /** How many layers have it; 0 outside the blocks. */
  nLayers: number;
}

export interface HookGroup {
  title: string;
  hooks: HookChoice[];
}

export function hookGroups(model: ReadyModel): HookGroup[] {
  const choices = new Map<string, HookChoice>();
  for (const point of model.hooks ?? []) {
    const name = shortName(point.hook);
    const known = choices.get(name);
    if (known) known.nLayers += 1;
    else choices.set(name, { name, shape: shapeOf(point), nLayers: point.layer == null ? 0 : 1 });
  }
  const groups: HookGroup[] = [
    { title: "Residual stream", hooks: [] },
    { title: "Attention", hooks: [] },
    { title: "MLP", hooks: [] },
    { title: "Norms", hooks: [] },
    { title: "Before and after the blocks", hooks: [] },
  ];
  const into = (index: number, choice: HookChoice) => (groups[index] as HookGroup).hooks.push(choice);
  for (const choice of choices.values()) {
    if (choice.nLayers === 0) into(4, choice);
    else if (choice.name.startsWith("resid_")) into(0, choice);
    else if (choice.name.startsWith("attn")) into(1, choice);
    else if (choice.name.startsWith("mlp")) into(2, choice);
    else into(3, choice);
  }
  return groups.filter((group) => group.hooks.length > 0);
}

function shapeOf({ shape, axes }: Schemas["HookPoint"]): string {
  return shape.map((size, i) => (size == null ? axes[i] : `${axes[i]} ${size}`)).join(" × ");
}
