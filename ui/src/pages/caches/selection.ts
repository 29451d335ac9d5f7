/** Which rows of a list are chosen, and the one that the keyboard is at. Pure functions. */

export interface Selection {
  ids: ReadonlySet<string>;
  /** Index of the current row; ranges begin at `anchor`. */
  current: number;
  anchor: number;
}

export const NOTHING: Selection = { ids: new Set(), current: 0, anchor: 0 };

/** A row is chosen or no longer. With `isRange` all rows from the anchor on are chosen. */
export function toggled(
  selection: Selection,
  index: number,
  idOf: (index: number) => string | undefined,
  isRange: boolean,
): Selection {
  const ids = new Set(selection.ids);
  if (isRange) {
    const [from, to] = [Math.min(selection.anchor, index), Math.max(selection.anchor, index)];
    for (let i = from; i <= to; i++) {
      const id = idOf(i);
      if (id !== undefined) ids.add(id);
    }
    return { ids, current: index, anchor: selection.anchor };
  }
  const id = idOf(index);
  if (id === undefined) return selection;
  if (!ids.delete(id)) ids.add(id);
  return { ids, current: index, anchor: index };
}

/** The row that a key leads to; undefined for other keys. */
export function moved(key: string, current: number, length: number): number | undefined {
  const clamp = (index: number) => Math.min(length - 1, Math.max(0, index));
  const steps: Record<string, number> = { ArrowDown: 1, ArrowUp: -1, PageDown: 12, PageUp: -12 };
  const step = steps[key];
  if (step !== undefined) return clamp(current + step);
  if (key === "Home") return 0;
  return key === "End" ? length - 1 : undefined;
}
