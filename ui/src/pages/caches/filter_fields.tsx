/** The search box and the filters, which all live in the address. */
import { useSignal } from "@preact/signals";
import { Check, Select, TextField } from "../../components/fields";
import { setQuery } from "../../router/location";
import { useModels } from "../../server/catalogue";
import { type CacheFilter, chips, onePerKey } from "./filter";

export function FilterFields({ filter }: { filter: CacheFilter }) {
  const isOpen = useSignal(false);
  const models = useModels();
  const names = [...new Set([...(models.value ?? []).map(({ id }) => id), ...(filter.model ? [filter.model] : [])])];
  return (
    <search class="caches-filter">
      <div class="row">
        <label class="field caches-search">
          <span class="unseen">Search the texts</span>
          <input
            type="search"
            dir="auto"
            value={filter.text}
            placeholder={'Search the texts: words, "a phrase"    ( / )'}
            onInput={(event) => setQuery({ text: event.currentTarget.value }, { replace: true })}
          />
        </label>
        <button
          type="button"
          aria-expanded={isOpen.value}
          onClick={() => {
            isOpen.value = !isOpen.value;
          }}
        >
          Filters
        </button>
      </div>
      {isOpen.value && (
        <div class="card caches-facets">
          <Select
            label="Model"
            value={filter.model}
            options={[{ value: "", label: "any" }, ...names.map((value) => ({ value, label: value }))]}
            onChange={(model) => setQuery({ model })}
          />
          <TextField label="Label" value={filter.label} onInput={(label) => setQuery({ label }, { replace: true })} />
          <AddField label="Tag" placeholder="press Enter to add" onAdd={(tag) => setQuery({ tag: [...filter.tags, tag] })} />
          <AddField
            label="Metadata"
            placeholder="key=value, Enter"
            isValid={(pair) => pair.indexOf("=") > 0}
            onAdd={(pair) => setQuery({ metadata: onePerKey([...filter.metadata, pair]) })}
          />
          <TextField
            label="Captured hook"
            value={filter.hook}
            mono
            placeholder="blocks.5.hook_resid_post"
            onInput={(hook) => setQuery({ hook }, { replace: true })}
          />
          <TextField label="Stored from" type="datetime-local" value={filter.from} onInput={(from) => setQuery({ from })} />
          <TextField label="Stored before" type="datetime-local" value={filter.to} onInput={(to) => setQuery({ to })} />
          <Check label="Pinned" checked={filter.isPinned} onChange={(pinned) => setQuery({ pinned })} />
        </div>
      )}
      <div class="caches-chips">
        {chips(filter).map(({ text, without }) => (
          <button key={text} type="button" class="tag chip" onClick={() => setQuery(without)}>
            <bdi>{text}</bdi> <span aria-hidden="true">×</span>
            <span class="unseen">remove</span>
          </button>
        ))}
      </div>
    </search>
  );
}

/** A field whose text is added on Enter, and stays where it is while it is not valid. */
function AddField(props: {
  label: string;
  placeholder: string;
  onAdd: (text: string) => void;
  isValid?: (text: string) => boolean;
}) {
  const { label, placeholder, onAdd, isValid = () => true } = props;
  const text = useSignal("");
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        const given = text.value.trim();
        if (!given || !isValid(given)) return;
        onAdd(given);
        text.value = "";
      }}
    >
      <TextField label={label} value={text.value} placeholder={placeholder} onInput={(value) => (text.value = value)} />
      {text.value.trim() !== "" && !isValid(text.value.trim()) && <p class="soft fault">{placeholder}</p>}
    </form>
  );
}
