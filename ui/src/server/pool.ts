/** Requests under way at once: browsers keep about as many connections to a server. */
const AT_ONCE = 6;

/** Does something for each item, several at a time, and returns what came of each in the order of the items. */
export async function forEach<Item, Value>(items: readonly Item[], act: (item: Item) => Promise<Value>): Promise<Value[]> {
  const found: Value[] = [];
  let next = 0;
  const work = async () => {
    while (next < items.length) {
      const index = next++;
      found[index] = await act(items[index] as Item);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return found;
}
