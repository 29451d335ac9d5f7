"""One class for every code of the server, and fallbacks for codes to come."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys

import pytest
from places import ROOT

import residuum as rs
from residuum._core.problem import api_error

SOURCE = ROOT / "crates" / "domain" / "src" / "problem.rs"


def test_every_code_of_the_server_has_a_class() -> None:
    listed = re.findall(r'^ *(\w+) = (\d+) "(\w+)" "([^"]+)";', SOURCE.read_text(), re.MULTILINE)
    assert len(listed) > 60
    assert {code for _, _, code, _ in listed} == set(rs.errors.BY_CODE)
    for _, status, code, title in listed:
        error = api_error({"code": code, "detail": "d"}, int(status))
        kind = rs.errors.BY_CODE[code]
        assert type(error) is kind
        assert getattr(rs, kind.__name__) is kind
        assert (error.code, error.status, error.title) == (code, int(status), title)


def test_bases() -> None:
    assert issubclass(rs.LayerOutOfRange, (rs.UnprocessableError, IndexError))
    assert issubclass(rs.HookNotInCache, rs.NotFoundError)
    assert issubclass(rs.HookNotInCache, KeyError)
    assert issubclass(rs.InvalidField, ValueError)
    assert issubclass(rs.ModelNotFound, LookupError)
    assert issubclass(rs.QueueFull, rs.RateLimitError)
    assert issubclass(rs.ServerBusy, rs.UnavailableError)
    assert issubclass(rs.StoreFull, rs.ServerError)
    assert issubclass(rs.ServerUnreachable, ConnectionError)
    assert all(issubclass(kind, rs.ResiduumError) for kind in rs.errors.BY_CODE.values())


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, rs.BadRequestError),
        (404, rs.NotFoundError),
        (418, rs.ApiError),
        (422, rs.UnprocessableError),
        (599, rs.ServerError),
    ],
)
def test_an_unknown_code_has_the_class_of_its_status(status: int, kind: type) -> None:
    error = api_error({"code": "brand_new", "detail": "d", "status": status}, status)
    assert type(error) is kind
    assert error.code == "brand_new"


def test_the_message_says_what_and_where() -> None:
    body = {
        "code": "invalid_body",
        "detail": "2 fields are wrong",
        "errors": [{"pointer": "/a", "detail": "is missing"}],
    }
    error = api_error(body, 400)
    assert str(error) == "2 fields are wrong [400 invalid_body]\n  /a: is missing"
    assert error.pointer == "/a"
    assert error.errors == [rs.FieldError("/a", "is missing")]
    assert "RESIDUUM_API_KEY" in str(api_error({"code": "api_key_required"}, 401))
    assert str(rs.HookNotInCache("no such hook")) == "no such hook [404 hook_not_in_cache]"


@pytest.mark.parametrize(
    "body", [None, [], "text", {"errors": "x"}, {"errors": [1, None]}, {"code": 3, "detail": None}]
)
def test_malformed_problems_are_errors_too(body: object) -> None:
    assert isinstance(api_error(body, 500), rs.ServerError)


def test_openai_shapes_are_understood() -> None:
    error = api_error({"error": {"message": "no such model", "code": "model_not_found"}}, 404)
    assert isinstance(error, rs.ModelNotFound)
    assert error.detail == "no such model"


def test_everything_public_is_listed_and_there() -> None:
    assert {kind.__name__ for kind in rs.errors.BY_CODE.values()} <= set(rs.__all__)
    assert set(rs.errors.__all__) <= set(rs.__all__)
    assert set(rs.results.__all__) <= set(rs.__all__)
    assert all(hasattr(rs, name) for name in rs.__all__)
    assert len(set(rs.__all__)) == len(rs.__all__)


def test_what_is_slow_is_imported_when_used() -> None:
    code = (
        "import sys, residuum as rs\n"
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules and 'residuum.models' not in sys.modules\n"
        "assert rs.models.Cache.__name__ == 'Cache'\n"
        "try:\n    rs.nothing\nexcept AttributeError as e:\n    assert 'nothing' in str(e)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if importlib.util.find_spec("torch"):
        assert rs.torch.ActivationDataset.__name__ == "ActivationDataset"
