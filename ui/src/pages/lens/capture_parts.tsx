/** Captures what the lens and the attribution read: which embeddings there are depends on the model. */
import type { Cache } from "residuum";
import { CaptureMissing } from "../../components/capture_missing";
import { Loaded } from "../../components/problem";
import { useModel } from "../../server/catalogue";
import { hooksOfParts } from "./attribution_values";

export function CaptureParts({ cache }: { cache: Cache }) {
  const model = useModel(cache.model);
  return (
    <Loaded of={model} what="the model's hooks">
      {(value) => (
        <CaptureMissing cache={cache} hooks={hooksOfParts(value.status === "ready" ? (value.hooks ?? []) : [])}>
          Capture it
        </CaptureMissing>
      )}
    </Loaded>
  );
}
