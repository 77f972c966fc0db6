"""Whether a release holds the app's module, and where Python looks for it."""

import pytest

from plugins.module_utils.build.check import check_module, search_path
from plugins.module_utils.build.uv import BuildError


def check(module: str, **files: str) -> None:
    tree = {name.replace("__", "/") + ".py": text for name, text in files.items()}
    check_module(module, set(tree), tree.__getitem__, lambda: {"lib/dep/main.py"})


def test_module_is_found_where_python_would() -> None:
    check("main:app", app__main="from fastapi import FastAPI\napp = FastAPI()\n")
    check("pkg.web:create()", app__src__pkg__web="def create(): ...\n")
    check("dep.main:app", app__other="")
    check("main:app", app__main="from other import *\n")
    check("main:app", app__main="if True:\n    app: object = 1\n")
    check("main:app", app__main="def f(:\n")
    check("main:api.inner", app__main="with open('x') as api: ...\n")


def test_module_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(BuildError, match=r"no module web \(looked in app, lib\)\. Did you mean main:api\?"):
        check("web:app", app__main="import fastapi\napi = fastapi.FastAPI()\n")
    with pytest.raises(BuildError, match=r"app/main\.py has no name 'app' at its top level\. Did you mean main:api\?"):
        check("main:app", app__main="def f():\n    app = 1\napi = FastAPI()\n")
    with pytest.raises(BuildError, match="write it as module:name"):
        check("main.py", app__main="")


def test_search_path_has_only_what_is_there() -> None:
    assert search_path({"app/main.py"}) == ["app", "lib"]
    assert search_path({"app/src/a.py", "site/b.py"}) == ["app", "app/src", "site", "lib"]
