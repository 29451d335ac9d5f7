/** Labelled controls of forms. */
import type { ComponentChildren, JSX, TargetedInputEvent } from "preact";
import { useId } from "preact/hooks";

export interface Option<Value extends string> {
  value: Value;
  label: string;
}

/** Options whose labels are their values. */
export function optionsOf<Value extends string>(values: Iterable<Value>): Option<Value>[] {
  return Array.from(values, (value) => ({ value, label: value }));
}

export function Select<Value extends string>(props: {
  label: string;
  value: Value;
  options: readonly Option<Value>[];
  onChange: (value: Value) => void;
  disabled?: boolean;
}) {
  const { label, value, options, onChange, disabled } = props;
  return (
    <label class="field">
      <span>{label}</span>
      <select value={value} disabled={disabled} onChange={(event) => onChange(event.currentTarget.value as Value)}>
        {options.map((option) => (
          <option key={option.value} value={option.value}>
            {option.label}
          </option>
        ))}
      </select>
    </label>
  );
}

export function TextField(props: {
  label: string;
  value: string;
  onInput: (value: string) => void;
  placeholder?: string;
  type?: "text" | "search" | "password" | "number" | "datetime-local";
  min?: number;
  max?: number;
  step?: number | "any";
  hint?: string;
  mono?: boolean;
  /** Suggestions. */
  choices?: readonly string[];
}) {
  const { label, value, onInput, hint, mono, choices, ...rest } = props;
  const id = useId();
  // preact has one type of attributes for each type of input; these are of several.
  const attributes = {
    ...rest,
    class: mono ? "mono" : undefined,
    value,
    dir: "auto",
    list: choices ? `${id}-list` : undefined,
    "aria-describedby": hint ? `${id}-hint` : undefined,
    onInput: (event: TargetedInputEvent<HTMLInputElement>) => onInput(event.currentTarget.value),
  } as JSX.IntrinsicElements["input"];
  return (
    <label class="field">
      <span>{label}</span>
      <input {...attributes} />
      {choices && (
        <datalist id={`${id}-list`}>
          {choices.map((choice) => (
            <option key={choice} value={choice} />
          ))}
        </datalist>
      )}
      {hint && (
        <small id={`${id}-hint`} class="soft">
          {hint}
        </small>
      )}
    </label>
  );
}

export function TextArea(props: {
  label: string;
  value: string;
  onInput: (value: string) => void;
  rows?: number;
  placeholder?: string;
}) {
  const { label, value, onInput, rows = 3, placeholder } = props;
  return (
    <label class="field field-wide">
      <span>{label}</span>
      <textarea
        rows={rows}
        value={value}
        dir="auto"
        placeholder={placeholder}
        onInput={(event) => onInput(event.currentTarget.value)}
      />
    </label>
  );
}

/** One of a few, side by side. */
export function Choice<Value extends string>(props: {
  label: string;
  value: Value;
  options: readonly Option<Value>[];
  onChange: (value: Value) => void;
}) {
  const { label, value, options, onChange } = props;
  return (
    <div class="choice" role="group" aria-label={label}>
      {options.map((option) => (
        <button key={option.value} type="button" aria-pressed={option.value === value} onClick={() => onChange(option.value)}>
          {option.label}
        </button>
      ))}
    </div>
  );
}

export function Slider(props: {
  label: string;
  value: number;
  min: number;
  max: number;
  step?: number;
  shown?: string;
  onInput: (value: number) => void;
}) {
  const { label, value, min, max, step = 1, shown = String(value), onInput } = props;
  // A label without `for` names the first control within it, which would be the output.
  const id = useId();
  return (
    <label class="field field-slider" for={id}>
      <span>
        {label} <output>{shown}</output>
      </span>
      <input
        id={id}
        type="range"
        value={value}
        min={min}
        max={max}
        step={step}
        aria-valuetext={shown}
        onInput={(event) => onInput(Number(event.currentTarget.value))}
      />
    </label>
  );
}

export function Check(props: {
  label: ComponentChildren;
  checked: boolean;
  onChange: (checked: boolean) => void;
  disabled?: boolean;
}) {
  return (
    <label class="check">
      <input
        type="checkbox"
        checked={props.checked}
        disabled={props.disabled}
        onChange={(event) => props.onChange(event.currentTarget.checked)}
      />
      <span>{props.label}</span>
    </label>
  );
}
