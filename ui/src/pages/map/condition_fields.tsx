/** Fields that choose caches. What is typed goes to the address when the field is left, or with Enter. */
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { TextField } from "../../components/fields";
import { commaList } from "../../format/lists";
import { setQuery } from "../../router/location";
import type { Conditions } from "../../server/conditions";

/** Names that go with the conditions and mean nothing for other caches, such as a zoom. */
export function ConditionFields({ conditions, reset = [] }: { conditions: Conditions; reset?: readonly string[] }) {
  const cleared = Object.fromEntries(reset.map((name) => [name, null]));
  const set = (values: Record<string, string | string[]>) => setQuery({ ...cleared, ...values });
  return (
    <>
      <Kept label="Tags" value={conditions.tags.join(", ")} onKeep={(text) => set({ tag: commaList(text) })} placeholder="any" />
      <Kept label="Label" value={conditions.label} onKeep={(text) => set({ label: text })} placeholder="any" />
      <Kept label="Words in the text" value={conditions.text} onKeep={(text) => set({ words: text })} placeholder="any" />
      <Kept
        label="Metadata"
        value={conditions.metadata.join(", ")}
        onKeep={(text) => set({ metadata: commaList(text) })}
        placeholder="key=value"
      />
      <Kept label="Run" value={conditions.run} onKeep={(text) => set({ run: text })} placeholder="any" mono />
    </>
  );
}

function Kept(props: { label: string; value: string; onKeep: (text: string) => void; placeholder: string; mono?: boolean }) {
  const { label, value, onKeep, placeholder, mono = false } = props;
  const text = useSignal(value);
  useEffect(() => {
    text.value = value;
  }, [value]);
  const keep = () => {
    if (text.peek().trim() !== value) onKeep(text.peek().trim());
  };
  return (
    <div
      class="kept-field"
      onFocusOut={keep}
      onKeyDown={(event) => {
        if (event.key === "Enter") keep();
      }}
    >
      <TextField label={label} value={text.value} mono={mono} placeholder={placeholder} onInput={(next) => (text.value = next)} />
    </div>
  );
}
