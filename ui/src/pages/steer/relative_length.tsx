/** How long the added vector is, and how long the residual stream is where it is added. */
import { significant } from "../../format/numbers";
import { client } from "../../server/client";
import { useResource } from "../../server/resource";
import { norms } from "../cache/rows";
import { typical } from "./typical_length";
import type { SteerForm } from "./steer_form";

/** `cache` is the baseline's, which has the residual stream of every token. */
export function RelativeLength({ form, hook, cache }: { form: SteerForm; hook: string; cache: string | undefined }) {
  const { direction, layer, strength } = form;
  const vectors = useResource(direction, async (signal) => {
    const path = { direction };
    return (await client.get("/v1/directions/{direction}", { params: { path }, signal })).vectors ?? [];
  });
  const isKnown = cache !== undefined && hook === "resid_post" && layer >= 0;
  const stream = useResource(isKnown ? `${cache} ${layer}` : null, async (signal) => {
    const tensor = await client.tensor(cache as string, `blocks.${layer}.hook_resid_post`, { signal });
    const width = tensor.shape.at(-1) ?? 1;
    return typical(norms({ n: tensor.size / width, width, data: tensor.data as Float32Array }));
  });
  const vector = vectors.value?.find((one) => (one.layer ?? -1) === layer && one.component === 0);
  const length = Number(vector?.metrics.norm ?? Number.NaN);
  const added = Math.abs(strength) * length;
  return (
    <p class="soft steer-length">
      {Number.isFinite(length) &&
        `${strength < 0 ? "Subtracted from" : "Added to"} every token: a vector of length ${significant(added)} (${significant(Math.abs(strength))} × ${significant(length)})`}
      {Number.isFinite(length) &&
        (stream.value === undefined
          ? "."
          : `, ${significant(added / stream.value, 3)} times the length of the residual stream at layer ${layer} (${significant(stream.value)}, the median of the baseline’s tokens after the first).`)}
    </p>
  );
}
