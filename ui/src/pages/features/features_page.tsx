/** Features of a sparse autoencoder: which are active at each token, and where one of them is most active. */
import { CachePicker } from "../../components/cache_picker";
import { CopyAs } from "../../components/copy_as";
import { Select, TextField, optionsOf } from "../../components/fields";
import { PageHeader } from "../../components/page_header";
import { Empty, Loaded } from "../../components/problem";
import { pythonClient } from "../../format/snippets";
import { href, queryInteger, queryText, setQuery } from "../../router/location";
import { Link } from "../../router/link";
import { readySaes, type ReadySae, useSaes } from "../../server/catalogue";
import { client } from "../../server/client";
import { useResource } from "../../server/resource";
import { OneFeature } from "./one_feature";
import { TokenFeatures } from "./token_features";
import "./features.css";

const TOP_K = 12;

export function FeaturesPage() {
  const saes = useSaes();
  return (
    <>
      <PageHeader title="Features">
        What a sparse autoencoder finds in stored activations: features at each token, and one feature in its contexts.
      </PageHeader>
      <Loaded of={saes} what="autoencoders">
        {(all) => {
          const ready = readySaes(all);
          if (ready.length > 0) return <FeaturesOf saes={ready} />;
          return (
            <Empty title={all.length > 0 ? "No autoencoder is ready yet" : "This server has no sparse autoencoder"}>
              Start it with <code>--sae ID=MODEL:FOLDER</code>, a folder in SAELens's format, or load one on{" "}
              <Link to={href("/server")}>the server page</Link>.
            </Empty>
          );
        }}
      </Loaded>
    </>
  );
}

function FeaturesOf({ saes }: { saes: ReadySae[] }) {
  const sae = saes.find(({ id }) => id === queryText("sae")) ?? (saes[0] as ReadySae);
  const cache = queryText("cache");
  const feature = queryInteger("feature", -1);
  const body = { sae: sae.id, top_k: TOP_K, allow_bos_mismatch: true };
  const found = useResource(cache ? JSON.stringify([cache, body]) : null, (signal) =>
    client.post("/v1/caches/{id}/features", { params: { path: { id: cache } }, body, signal }),
  );
  return (
    <>
      <div class="row features-controls">
        <Select
          label="Autoencoder"
          value={sae.id}
          options={optionsOf(saes.map(({ id }) => id))}
          onChange={(id) => setQuery({ sae: id, feature: null })}
        />
        <TextField
          label="Feature"
          type="number"
          min={0}
          max={sae.d_sae - 1}
          value={feature < 0 ? "" : String(feature)}
          onInput={(value) => setQuery({ feature: value }, { replace: true })}
        />
        <span class="soft">
          {sae.architecture}, {sae.d_sae} features of <code>{sae.hook}</code> in {sae.model}
        </span>
        <span class="spacer" />
        {cache && (
          <CopyAs
            request={{ method: "POST", path: `/v1/caches/${cache}/features`, body }}
            python={`${pythonClient(location.origin)}\nfound = client.cache("${cache}").features("${sae.id}", top_k=${TOP_K})`}
          />
        )}
      </div>
      {feature >= 0 && <OneFeature sae={sae} feature={feature} />}
      {cache ? (
        <Loaded of={found} what="features">
          {(value) => <TokenFeatures found={value} feature={feature} />}
        </Loaded>
      ) : (
        <section class="card" aria-labelledby="features-pick">
          <h2 id="features-pick">Choose a cache to see the features of its tokens</h2>
          <CachePicker label="Search" chosen={[]} onPick={(id) => setQuery({ cache: id })} />
        </section>
      )}
    </>
  );
}
