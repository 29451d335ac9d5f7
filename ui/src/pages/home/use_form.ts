/** The form as a signal: the address follows it, and it follows the address when the reader goes back or forward. */
import { type ReadonlySignal, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { place, setQuery } from "../../router/location";
import { formOf, queryOf, type RunForm } from "./form";

/** Milliseconds after the last change: browsers refuse an address that changes with every key. */
const DELAY = 300;

export interface FormState extends Pick<ReadonlySignal<RunForm>, "value"> {
  change: (values: Partial<RunForm>) => void;
  /** Writes the address now. */
  write: () => void;
}

export function useForm(): FormState {
  // The address has the form, but for long texts; so the form is kept here too.
  const form = useSignal<RunForm>(formOf(place.value.query));
  const written = useRef(place.value.query.toString());
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  useEffect(() => {
    // Back and forward bring another form.
    const now = place.value.query.toString();
    if (now === written.current) return;
    written.current = now;
    clearTimeout(timer.current);
    form.value = formOf(place.value.query);
  }, [place.value.query]);
  useEffect(() => () => clearTimeout(timer.current), []);
  const write = () => {
    clearTimeout(timer.current);
    setQuery(queryOf(form.peek()), { replace: true });
    written.current = place.peek().query.toString();
  };
  const change = (values: Partial<RunForm>) => {
    form.value = { ...form.peek(), ...values };
    clearTimeout(timer.current);
    timer.current = setTimeout(write, DELAY);
  };
  return { value: form.value, change, write };
}
