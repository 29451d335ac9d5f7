#!/usr/bin/env python3
"""Calls a running server with the client that openapi-python-client made. mypy --strict checks this file too.

    PYTHONPATH=target/generators/python tests/generators/live_python.py http://127.0.0.1:8080

The server needs the model `smollm2-135m`. The last line is `N passed, N failed`.
"""

import io
import sys
from collections.abc import Callable

import httpx
from residuum_generated import AuthenticatedClient
from residuum_generated.api.analysis import patch_activations
from residuum_generated.api.caches import get_cache, get_cache_layer, get_cache_safetensors, import_cache, list_caches, update_cache
from residuum_generated.api.comparisons import compare_caches
from residuum_generated.api.directions import create_direction, delete_direction
from residuum_generated.api.export import export_caches
from residuum_generated.api.models import list_models
from residuum_generated.api.runs import create_run, follow_run
from residuum_generated.api.search import search
from residuum_generated.models import (
    Cache,
    CacheConditions,
    CachePage,
    CachePatch,
    Capture,
    Comparison,
    ComparisonRequest,
    CreateRun,
    Direction,
    DirectionUpload,
    DryRun,
    Intervention,
    Patching,
    PatchingRequest,
    PositionRange,
    PositionsByText,
    Problem,
    ReadyModel,
    Run,
    Search,
    SearchSource,
    SweepRequest,
    UploadedVector,
)
from residuum_generated.types import File

MODEL = "smollm2-135m"
EIFFEL = "The Eiffel Tower is in the city of"
JOHN_AND_MARY = "When John and Mary went to the store, {} gave a drink to"


class Calls:
    """One client, and what the first calls made for later ones. A server without keys takes any token."""

    def __init__(self, url: str) -> None:
        self.client = AuthenticatedClient(base_url=url, token="any", timeout=httpx.Timeout(300.0))
        made = create_run.sync(
            client=self.client,
            wait=120.0,
            body=CreateRun(
                model=MODEL,
                input_=[EIFFEL, "The Colosseum is in the city of"],
                capture=Capture(hooks=["resid_post", "logits"], positions="last"),
                tags=["generated"],
            ),
        )
        assert isinstance(made, Run) and made.status == "completed", made
        self.run, (self.a, self.b) = made.id, made.caches

    def models_have_sizes(self) -> bool:
        models = list_models.sync(client=self.client)
        assert not isinstance(models, Problem) and models is not None
        model = models.items[0]
        return isinstance(model, ReadyModel) and model.n_layers == 30

    def dry_run(self) -> bool:
        body = CreateRun(model=MODEL, input_=EIFFEL, capture=Capture(layers=12, positions=PositionsByText(text="Tower")))
        answer = create_run.sync(client=self.client, dry_run=True, body=body)
        return isinstance(answer, DryRun) and answer.items[0].positions == 3 and answer.n_bytes == 576 * 4

    def cache(self) -> bool:
        answer = get_cache.sync(self.a, client=self.client)
        return isinstance(answer, Cache) and answer.text == EIFFEL and answer.n_layers == 30

    def caches(self) -> bool:
        answer = list_caches.sync(client=self.client, tag=["generated"], limit=1)
        return isinstance(answer, CachePage) and len(answer.items) == 1 and isinstance(answer.items[0], Cache)

    def layer_as_npy(self) -> bool:
        """The client reads this operation as JSON only: bytes come from its own connection."""
        answer = self.client.get_httpx_client().request(**get_cache_layer._get_kwargs(self.a, 12, format_="npy"))
        return answer.content.startswith(b"\x93NUMPY") and len(answer.content) == 128 + 576 * 4

    def safetensors(self) -> bool:
        answer = get_cache_safetensors.sync(self.a, client=self.client)
        return isinstance(answer, File) and b"blocks.12.hook_resid_post" in answer.payload.read()

    def comparison(self) -> bool:
        body = ComparisonRequest(mode="pairs", a=[self.a], b=[self.b], metrics=["cosine"])
        answer = compare_caches.sync(client=self.client, body=body)
        return isinstance(answer, Comparison) and answer.mode == "pairs"

    def knockout(self) -> bool:
        change = Intervention(op="knockout", layers=[20, 21], from_=PositionRange(start=1, end=4), to="last")
        answer = create_run.sync(client=self.client, wait=120.0, body=CreateRun(model=MODEL, input_=EIFFEL, interventions=[change]))
        return isinstance(answer, Run) and answer.status == "completed" and answer.caches[0] != self.a

    def patching(self) -> bool:
        body = PatchingRequest(
            model=MODEL,
            clean=JOHN_AND_MARY.format("John"),
            corrupt=JOHN_AND_MARY.format("Mary"),
            answer=" Mary",
            against=" John",
            sweep=SweepRequest(hook="resid_pre", positions="each", layers=[0, 25]),
        )
        answer = patch_activations.sync(client=self.client, body=body)
        return isinstance(answer, Patching) and answer.axes == ["layer", "pos"] and len(answer.values) == 2

    def search(self) -> bool:
        body = Search(
            query=SearchSource(text="The Louvre is in the city of", model=MODEL), layer=20, k=2, filter_=CacheConditions(tags=["generated"])
        )
        answer = search.sync(client=self.client, body=body)
        return answer is not None and not isinstance(answer, Problem) and len(answer.results[0].hits) == 2

    def edit(self) -> bool:
        answer = update_cache.sync(self.a, client=self.client, body=CachePatch(pinned=True))
        return isinstance(answer, Cache) and answer.pinned

    def events(self) -> bool:
        answer = follow_run.sync(self.run, client=self.client)
        return isinstance(answer, str) and answer.startswith("event: run") or "\nevent: run\n" in str(answer)

    def export(self) -> bool:
        answer = export_caches.sync(client=self.client, tag=["generated"], layers="12", format_="npz")
        return isinstance(answer, File) and answer.payload.read(2) == b"PK"

    def file_import(self) -> bool:
        file = get_cache_safetensors.sync(self.a, client=self.client)
        assert isinstance(file, File)
        answer = import_cache.sync(client=self.client, label="again", body=File(io.BytesIO(file.payload.read())))
        return isinstance(answer, Cache) and answer.label == "again"

    def direction(self) -> bool:
        vector = UploadedVector(layer=12, values=[0.0] * 575 + [1.0])
        answer = create_direction.sync(client=self.client, body=DirectionUpload(method="upload", name="generated", vectors=[vector]))
        delete_direction.sync_detailed("generated", client=self.client)
        return isinstance(answer, Direction) and answer.method == "upload"

    def error(self) -> bool:
        answer = get_cache.sync("01a20f3c-14f2-7223-86f1-36bcd607e807", client=self.client)
        return isinstance(answer, Problem) and answer.code == "cache_not_found"


def main() -> int:
    calls = Calls(sys.argv[1])
    checks: list[Callable[[], bool]] = [
        calls.models_have_sizes,
        calls.dry_run,
        calls.cache,
        calls.caches,
        calls.layer_as_npy,
        calls.safetensors,
        calls.comparison,
        calls.knockout,
        calls.patching,
        calls.search,
        calls.edit,
        calls.events,
        calls.export,
        calls.file_import,
        calls.direction,
        calls.error,
    ]
    failed = 0
    for check in checks:
        try:
            ok, why = check(), "another answer"
        except Exception as error:  # generated code raises whatever it happens to run into
            ok, why = False, f"{type(error).__name__}: {error}"
        failed += not ok
        print(f"{'ok' if ok else 'FAIL':<5} {check.__name__.replace('_', ' ')}{'' if ok else ': ' + why}")
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
