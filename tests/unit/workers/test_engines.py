"""The engines, and that a new one is one file."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

from plugins.filter.unit_start import unit_start
from plugins.module_utils.workers import engines as engines_module
from plugins.module_utils.workers import start as start_module
from plugins.module_utils.workers.engines import DEFAULT, ENGINES, Process, Start, engine, load
from plugins.module_utils.workers.engines.base import SHUTDOWN_SECONDS

REPOSITORY = Path(__file__).parents[3]
#: A whole engine: the only thing that somebody writes who adds one.
HYPOTHETICAL = """
from plugins.module_utils.workers.engines.base import Engine


class Hypothetical(Engine):
    name = "hypothetical"
    unit_type = "exec"
    least_workers = 3
    packages = ("hypothetical", "uvloop")
    lacks = frozenset({"proxy_keepalive"})

    def command(self, start):
        bind = ["--bind", start.bind] if start.bind else ["--systemd"]
        return [[*start.python, "-m", "hypothetical"], ["-n", start.workers], bind, [start.app]]

    def refusal(self, packages):
        return "hypothetical 0" if packages.get("hypothetical") == "0" else ""


ENGINE = Hypothetical()
"""


@pytest.fixture
def hypothetical(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine of one more file in the folder of engines."""
    package = tmp_path / "more_engines"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "hypothetical.py").write_text(HYPOTHETICAL)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, item in load([str(package)], "more_engines").items():
        monkeypatch.setitem(engines_module.ENGINES, name, item)
    yield_of = [name for name in sys.modules if name.startswith("more_engines")]
    assert yield_of


@pytest.mark.usefixtures("hypothetical")
def test_a_new_engine_is_one_file() -> None:
    """The unit, a container and the host's checks know it, without a word about it elsewhere."""
    lines = unit_start({"engine": "hypothetical", "python": ["/usr/bin/python3", "-S"], "timeout": "60"})
    assert lines == (
        "Type=exec\nExecStart=/usr/bin/python3 -S -m hypothetical \\\n    -n ${FLEET_WORKERS} \\\n    --systemd "
        "\\\n    ${FLEET_MODULE}"
    )
    command = start_module.command({"FLEET_ENGINE": "hypothetical"}, "main:app", 3, ["--own"])
    assert command == [
        sys.executable,
        *["-m", "hypothetical", "-n", "3", "--bind", "0.0.0.0:8000", "--own", "main:app"],
    ]
    assert engine("hypothetical").workers(Process(1, b""), [Process(2, b"x")]) == [2]


def test_an_engine_that_is_none_is_named_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="service_engine is 'granian': allowed are gunicorn, asgi, uvicorn"):
        engine("granian")
    with pytest.raises(ValueError, match="FLEET_ENGINE is 'granian': allowed are gunicorn, asgi, uvicorn"):
        start_module.command({"FLEET_ENGINE": "granian"}, "main:app", 1)


@pytest.mark.parametrize(
    ("changes", "worker_class"),
    [
        ({}, "uvicorn_worker.UvicornWorker"),
        ({"classes": "/worker"}, "fleet_preload.UvicornWorker"),
        ({"classes": "/worker", "recycles": True}, "own_worker.RetiringWorker"),
        ({"keepalive": True}, "own_worker.RetiringWorker"),
        ({"even_bursts": True, "version": (3, 11), "classes": "/worker"}, "fleet_preload.UvicornWorker"),
        ({"even_bursts": True, "version": (3, 12), "keepalive": True}, "own_worker.EvenWorker"),
        ({"http": "fleet.workers.http", "even_bursts": True, "version": (3, 12)}, "fleet.workers.http.Worker"),
    ],
)
def test_gunicorns_worker_class_follows_from_what_is_wanted(changes: dict[str, object], worker_class: str) -> None:
    start = Start(python=["python3"], app="a:b", attribute="a:b", workers="1", timeout="60", **changes)  # type: ignore[arg-type]
    assert DEFAULT.command(start)[0] == ["python3", "-m", "gunicorn", "-k", worker_class]


def test_uvicorn_gets_the_app_without_a_call() -> None:
    start = Start(python=["python3"], app="a:make()", attribute="a:make", workers="1", timeout="60")
    assert ENGINES["uvicorn"].command(start)[-1] == ["a:make"]
    assert DEFAULT.command(start)[-1] == ["a:make()"]


@pytest.mark.parametrize(("version", "refused"), [("26.9.1", True), ("27.0.0", False), ("28.0", False), ("", False)])
def test_asgi_refuses_a_gunicorn_whose_parser_has_holes(version: str, refused: bool) -> None:
    assert bool(ENGINES["asgi"].refusal({"gunicorn": version})) is refused
    assert DEFAULT.refusal({"gunicorn": version}) == "", "with Uvicorn's workers, gunicorn's parser is not used"


def test_each_engine_has_a_row_in_the_docs() -> None:
    page = (REPOSITORY / "docs/engines.md").read_text(encoding="utf-8")
    for name in ENGINES:
        assert f"| `{name}`" in page, f"docs/engines.md has no row for {name}"


def test_nothing_else_compares_an_engines_name() -> None:
    """An engine is one file: who compares names elsewhere would have to be changed for the next one."""
    names = "|".join(ENGINES)
    compared = re.compile(rf"""(==|!=|\bin\b)\s*[\[({{]?\s*['"]({names})['"]""")
    files = [*REPOSITORY.glob("plugins/**/*.py"), *REPOSITORY.glob("roles/**/*.yml"), *REPOSITORY.glob("roles/**/*.j2")]
    hits = {str(file.relative_to(REPOSITORY)): compared.findall(file.read_text(encoding="utf-8")) for file in files}
    assert {name: found for name, found in hits.items() if found} == {}
    assert compared.search("if engine == 'uvicorn'")


@pytest.mark.parametrize("name", ["gunicorn", "asgi"])
def test_gunicorn_kills_no_worker_while_the_app_shuts_down(name: str) -> None:
    """Its workers leave the app as much of the graceful timeout as the command gives for that."""
    sys.path.insert(0, str(Path(start_module.__file__).parent / "server"))
    try:
        server = importlib.import_module("fleet_preload")
    finally:
        sys.path.pop(0)
    start = Start(python=["python3"], app="a:b", attribute="a:b", workers="1", timeout="60", drain="30")
    graceful = int(dict(group for group in ENGINES[name].command(start) if len(group) == 2)["--graceful-timeout"])
    assert server.SHUTDOWN_SECONDS == SHUTDOWN_SECONDS
    assert server.patience(graceful) == 30
    assert server.patience(0) == 1
