"""Which MODULE:ATTRIBUTE is called to make the app: told from the source alone."""

from __future__ import annotations

import pytest

from plugins.module_utils.workers.factory import called

APP = "from fastapi import FastAPI\n"


@pytest.mark.parametrize(
    ("source", "is_factory"),
    [
        (f"{APP}def make(): return FastAPI()", True),
        (f"{APP}def make(debug=False, *, more=1, **rest): return FastAPI()", True),
        (f"{APP}def make(settings): return FastAPI()", False),
        (f"{APP}def make(*, settings): return FastAPI()", False),
        (f"{APP}make = FastAPI()", False),
        (f"{APP}def make(): ...\nmake = FastAPI()", False),
        ("async def make(scope, receive, send): ...", False),
        ("class make:\n    def __call__(self): ...", False),
        ("def outer():\n    def make(): ...", False),
        ("from other import *", False),
        ("def make(:", False),
    ],
)
def test_a_function_without_parameters_that_must_be_given_makes_the_app(source: str, is_factory: bool) -> None:
    assert called("main:make", {"main": source}.get) == ("main:make()" if is_factory else "main:make")


@pytest.mark.parametrize("app", ["main:make()", "main:api.inner", "main", "elsewhere:make"])
def test_what_is_written_otherwise_or_cannot_be_read_is_left_alone(app: str) -> None:
    assert called(app, {"main": "def make(): ..."}.get) == app


@pytest.mark.parametrize(
    "line", ["from pkg.factory import make", "from .factory import make", "from .factory import create as make"]
)
def test_an_import_is_followed(line: str) -> None:
    sources = {"pkg.main": line, "pkg.factory": "def create(): ...\ndef make(): ..."}
    assert called("pkg.main:make", sources.get) == "pkg.main:make()"


def test_imports_in_a_circle_end() -> None:
    assert called("a:make", {"a": "from b import make", "b": "from a import make"}.get) == "a:make"
