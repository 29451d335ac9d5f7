"""What questions answer, for annotations and `isinstance`; all of it is in `residuum` as well."""

from ._async.directions import AsyncDirection, AsyncDirections
from ._async.generation import AsyncGeneration, AsyncTokenStream
from ._async.saes import AsyncSae, AsyncSaes
from ._async.steered import AsyncSteeredModel
from ._core.results.attribution import Attribution, Part
from ._core.results.generation import TokenEvent
from ._core.results.lens import LogitLens
from ._core.results.measures import Comparison, Measures, Projections, Statistics
from ._core.results.patching import Patching
from ._core.results.search import FeatureHits, Features, Hit, SearchResult
from ._sync.directions import Direction, Directions
from ._sync.generation import Generation, TokenStream
from ._sync.saes import Sae, Saes
from ._sync.steered import SteeredModel

__all__ = [
    "AsyncDirection",
    "AsyncDirections",
    "AsyncGeneration",
    "AsyncSae",
    "AsyncSaes",
    "AsyncSteeredModel",
    "AsyncTokenStream",
    "Attribution",
    "Comparison",
    "Direction",
    "Directions",
    "FeatureHits",
    "Features",
    "Generation",
    "Hit",
    "LogitLens",
    "Measures",
    "Part",
    "Patching",
    "Projections",
    "Sae",
    "Saes",
    "SearchResult",
    "Statistics",
    "SteeredModel",
    "TokenEvent",
    "TokenStream",
]
