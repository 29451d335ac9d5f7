/** One cache: its tokens, what was captured, what made it. */
import { useSignal } from "@preact/signals";
import type { Cache } from "residuum";
import { CacheFrame, useCache } from "../../components/cache_frame";
import { CopyAs } from "../../components/copy_as";
import { Confirm } from "../../components/dialog";
import { ProblemNote } from "../../components/problem";
import { pythonClient } from "../../format/snippets";
import { go, href } from "../../router/location";
import { Link } from "../../router/link";
import { client } from "../../server/client";
import { useAction } from "../../server/resource";
import type { PageProps } from "../routes";
import { Annotations } from "./annotations";
import { HooksCard } from "./hooks_card";
import { Receipt } from "./receipt";
import { TokensCard } from "./tokens_card";
import "./cache.css";

export function CachePage({ params }: PageProps) {
  const id = params.id ?? "";
  const cache = useCache(id);
  return (
    <CacheFrame id={id} cache={cache} actions={cache.value && <Actions cache={cache.value} />}>
      {(found) => (
        <>
          {found.completion && (
            <p class="written" dir="auto">
              {found.completion.text} <span class="soft">({found.completion.finish_reason})</span>
            </p>
          )}
          <TokensCard cache={found} />
          <div class="columns cache-cards">
            <Annotations cache={found} onChange={cache.set} />
            <Receipt cache={found} />
          </div>
          <HooksCard cache={found} />
        </>
      )}
    </CacheFrame>
  );
}

function Actions({ cache }: { cache: Cache }) {
  const isAsking = useSignal(false);
  const remove = useAction(async (signal) => {
    await client.delete("/v1/caches/{id}", { params: { path: { id: cache.id } }, signal });
    go(href("/caches"));
  });
  return (
    <>
      <CopyAs
        request={{ path: `/v1/caches/${cache.id}` }}
        python={`${pythonClient(location.origin)}\ncache = client.cache("${cache.id}")`}
        cli={`residuum caches show ${cache.id}`}
      />
      <Link class="button" to={href("/compare", { cache: [cache.id] })}>
        Compare
      </Link>
      <Link class="button" to={href("/search", { cache: cache.id })}>
        Find similar
      </Link>
      <button
        type="button"
        class="danger"
        onClick={() => {
          isAsking.value = true;
        }}
      >
        Delete
      </button>
      {remove.error !== undefined && <ProblemNote error={remove.error} />}
      {isAsking.value && (
        <Confirm
          title="Delete this cache?"
          action="Delete"
          onConfirm={() => void remove.run()}
          onClose={() => {
            isAsking.value = false;
          }}
        >
          <p>Its {cache.hooks.length} tensors are deleted. This cannot be undone.</p>
        </Confirm>
      )}
    </>
  );
}
