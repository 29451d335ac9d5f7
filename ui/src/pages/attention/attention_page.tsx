/** Where each token looks: all heads of a layer, and one of them in full. */
import type { Cache } from "residuum";
import { CacheFrame, heldLayers, heldPositions, useCache } from "../../components/cache_frame";
import { CaptureMissing } from "../../components/capture_missing";
import { CopyAs } from "../../components/copy_as";
import { Slider } from "../../components/fields";
import { Empty, Loaded } from "../../components/problem";
import { pythonClient } from "../../format/snippets";
import { queryInteger, setQuery } from "../../router/location";
import { client } from "../../server/client";
import { useResource } from "../../server/resource";
import type { PageProps } from "../routes";
import type { Pattern } from "./attention_values";
import { HeadView } from "./head_view";
import { HeadMaps } from "./head_maps";
import "./attention.css";

export function AttentionPage({ params }: PageProps) {
  const id = params.id ?? "";
  const cache = useCache(id);
  return (
    <CacheFrame id={id} cache={cache}>
      {(found) => <AttentionOf cache={found} />}
    </CacheFrame>
  );
}

function AttentionOf({ cache }: { cache: Cache }) {
  const layers = heldLayers(cache, "attn.hook_pattern");
  if (layers.length === 0) {
    return (
      <Empty title="This cache has no attention patterns">
        They are captured for the same tokens, and shown here.{" "}
        <CaptureMissing cache={cache} hooks={["resid_post", "attn.pattern"]}>
          Capture them
        </CaptureMissing>
      </Empty>
    );
  }
  return <Layer cache={cache} layers={layers} />;
}

function Layer({ cache, layers }: { cache: Cache; layers: number[] }) {
  const wanted = queryInteger("layer", layers[0] as number);
  const at = Math.max(0, layers.indexOf(wanted));
  const layer = layers[at] as number;
  const hook = `blocks.${layer}.attn.hook_pattern`;
  const pattern = useResource(`${cache.id} ${hook}`, async (signal): Promise<Pattern> => {
    const tensor = await client.tensor(cache.id, hook, { signal });
    const held = heldPositions(cache);
    const shape = tensor.shape;
    // Of one position the query axis is dropped.
    const [nHeads, nQueries, nKeys] = shape.length === 3 ? shape : [shape[0], 1, shape[1]];
    return {
      nHeads: nHeads as number,
      nQueries: nQueries as number,
      nKeys: nKeys as number,
      values: tensor.data,
      queries: held.length === nQueries ? held : Array.from({ length: nQueries as number }, (_, i) => i),
    };
  });
  return (
    <>
      <div class="row attention-controls">
        <Slider
          label="Layer"
          value={at}
          min={0}
          max={layers.length - 1}
          shown={String(layer)}
          onInput={(value) => setQuery({ layer: layers[value] }, { replace: true })}
        />
        <span class="spacer" />
        <CopyAs
          request={{ path: `/v1/caches/${cache.id}/tensors/${hook}?format=npy`, output: "pattern.npy" }}
          python={`${pythonClient(location.origin)}\npattern = client.cache("${cache.id}")["attn.pattern", ${layer}]    # [head, query, key]`}
          cli={`residuum get ${cache.id}:${hook} -o pattern.npy`}
        />
      </div>
      <Loaded of={pattern} what="patterns">
        {(value) => (
          <>
            <HeadMaps pattern={value} layer={layer} head={headIn(value)} />
            <HeadView cache={cache} pattern={value} layer={layer} head={headIn(value)} />
          </>
        )}
      </Loaded>
    </>
  );
}

function headIn(pattern: Pattern): number {
  return Math.min(Math.max(0, queryInteger("head", 0)), pattern.nHeads - 1);
}
