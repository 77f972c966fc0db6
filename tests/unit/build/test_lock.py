"""The app's lock: read, compared with what it is for, and how to make one."""

from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.build.lock import compile_lock, export_lock, how_to_lock, read_lock, stale_lock
from plugins.module_utils.build.source import Source
from plugins.module_utils.build.uv import BuildError, Uv, UvError


def wheel(tmp_path: Path, *extras: str) -> Source:
    path = tmp_path / "shop_x-1.0-py3-none-any.whl"
    project = {"project": {"name": "Shop_X", "requires-python": ">=3.11"}}
    return Source("wheel", tmp_path, {}, "1.0", [], project, path, ["anyio"], list(extras))


def lock_file(tmp_path: Path, text: str) -> str:
    (tmp_path / "lock.txt").write_text(text)
    return str(tmp_path / "lock.txt")


def test_how_a_lock_is_made(tmp_path: Path) -> None:
    common = "uv pip compile --universal --generate-hashes --python-version"
    made = how_to_lock(wheel(tmp_path, "s3", "all"), "3.11", "my lock.txt")
    path = f"'{tmp_path}/shop_x-1.0-py3-none-any.whl[s3,all]'"
    assert made == f"echo {path} | {common} 3.11 -o 'my lock.txt' --no-emit-package shop-x -"
    folder = Source("requirements.txt", tmp_path, {}, "")
    assert how_to_lock(folder, "3.10").endswith(f"{common} 3.10 -o requirements.lock.txt requirements.txt")


@pytest.mark.parametrize(
    "itself",
    [
        "-e .",
        ".",
        "shop-x==1.0 --hash=sha256:00",
        "shop.x[s3]==1.0 --hash=sha256:00",
        "./dist/shop_x-1.0-py3-none-any.whl --hash=sha256:00",
        "shop-x @ file:///dist/shop_x-1.0-py3-none-any.whl \\\n    --hash=sha256:00",
    ],
)
def test_a_lock_names_all_but_the_source_itself(tmp_path: Path, itself: str) -> None:
    """As `uv export` writes, and `uv pip compile` without --no-emit-package."""
    rest = "--index-url https://example.org/simple\nshop-x-y==1 --hash=sha256:aa\n"
    path = lock_file(tmp_path, f"# by uv\n{itself}\n{rest}    # via shop-x\n")
    assert read_lock(wheel(tmp_path), path, "3.12") + "\n" == rest


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("anyio==4.0\n", "has no hash for anyio"),
        ("h11==1 --hash=sha256:aa\nanyio>=4 ; python_version > '3'\n", "has no hash for anyio"),
        ("-r more.txt\n", "has no hash for -r"),
        ("--constraint=more.txt\n", "has no hash for --constraint"),
    ],
)
def test_a_lock_without_hashes_is_refused(tmp_path: Path, text: str, want: str) -> None:
    with pytest.raises(BuildError, match=rf"lock\.txt {want}\. Make it with: echo \S+\.whl \| uv pip compile .*-o \S+"):
        read_lock(wheel(tmp_path), lock_file(tmp_path, text), "3.12")


def test_a_lock_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"release_lock nowhere does not exist .* Make it with: echo"):
        read_lock(wheel(tmp_path), "nowhere", "3.12")
    with pytest.raises(BuildError, match=r"cannot be read: .*Is a directory"):
        read_lock(wheel(tmp_path), str(tmp_path), "3.12")
    (tmp_path / "lock.txt").write_bytes(b"\xff")
    with pytest.raises(BuildError, match=r"lock\.txt is not UTF-8"):
        read_lock(wheel(tmp_path), str(tmp_path / "lock.txt"), "3.12")


def test_two_locks_are_refused(tmp_path: Path) -> None:
    path = lock_file(tmp_path, "anyio==4 --hash=sha256:aa\n")
    with pytest.raises(
        BuildError, match=r"release_lock is .*/lock\.txt, but app_source has a lock of its own, uv\.lock"
    ):
        read_lock(Source("uv.lock", tmp_path, {}, ""), path, "3.12")
    hashed = Source("requirements.txt", tmp_path, {"requirements.txt": Path(path)}, "")
    with pytest.raises(BuildError, match=r"a lock of its own, requirements\.txt"):
        read_lock(hashed, path, "3.12")
    hashed.files["requirements.txt"].write_text("anyio\n")
    with pytest.raises(BuildError, match="no hash"):
        read_lock(hashed, path, "3.12")


def test_stale_lock_names_what_differs() -> None:
    needed = ["fastapi[all] >=0.1, <2 ; python_version>'3'", "Ty_per"]
    project: dict[str, Any] = {"project": {"name": "A", "dependencies": needed}}
    rows = [{"name": "fastapi", "specifier": "<2,>=0.1"}, {"name": "ty-per"}, {"name": "x", "marker": "extra == 'dev'"}]
    lock: dict[str, Any] = {"package": [{"name": "a", "source": {"virtual": "."}, "metadata": {"requires-dist": rows}}]}
    assert stale_lock(project, lock) == []
    project["project"]["dependencies"] = ["fastapi>=0.2,<2", "typer", "new"]
    assert stale_lock(project, lock) == ["fastapi", "new", "ty-per", "typer"]
    project["project"]["requires-python"] = ">=3.12"
    assert "requires-python" in stale_lock(project, lock)


def test_specifiers_are_compared_by_what_they_mean() -> None:
    project = {
        "project": {"name": "A", "requires-python": ">=3.11,<4.0", "dependencies": ["x==1.0", "y @ https://h/y"]}
    }
    rows = [{"name": "x", "specifier": "==1.0.0"}, {"name": "y", "url": "https://h/y"}]
    own = {"name": "a", "source": {"editable": "."}, "metadata": {"requires-dist": rows}}
    assert stale_lock(project, {"requires-python": "<4, >=3.11", "package": [own]}) == []
    assert stale_lock(project, {"package": [{"name": "a", "source": {"registry": "https://h"}}]}) == ["a"]


class Scripted(Uv):
    """Answers from a list: text, or an error; keeps what it was asked, and the files that it was to read."""

    def __init__(self, *answers: str | UvError) -> None:
        super().__init__("/no/uv")
        self.answers, self.calls, self.inputs = list(answers), [], []  # type: ignore[var-annotated]

    def run(self, *args: str, cwd: Path, indexed: bool = True) -> str:
        self.calls.append(args)
        self.inputs += [Path(arg).read_text() for arg in args if arg.endswith(".in")]
        answer = self.answers.pop(0)
        if isinstance(answer, UvError):
            raise answer
        return answer


def locked(tmp_path: Path, **project: Any) -> Source:
    (tmp_path / "uv.lock").write_text('[[package]]\nname = "shop"\nsource = { virtual = "." }\n')
    return Source("uv.lock", tmp_path, {}, "", [], {"project": {"name": "shop", **project}})


@pytest.mark.parametrize(
    ("stderr", "message"),
    [
        (
            "The lockfile needs to be updated, but",
            r"uv\.lock does not fit pyproject\.toml\. Run in",
        ),
        ("Failed to parse `uv.lock`", r"uv\.lock cannot be read\. Make it anew: uv lock"),
    ],
)
def test_lock_that_uv_refuses(tmp_path: Path, stderr: str, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        export_lock(locked(tmp_path), Scripted(UvError(stderr)))


def test_lock_that_uv_cannot_check_is_compared_here(tmp_path: Path) -> None:
    """uv refuses to check the lock of an app whose Python is newer than the controller's."""
    too_old = UvError("requested interpreter is incompatible")
    uv = Scripted(too_old, "h11==1 --hash=sha256:aa\n")
    assert export_lock(locked(tmp_path), uv) == "h11==1 --hash=sha256:aa\n"
    assert ["--locked" in uv.calls[0], "--frozen" in uv.calls[1]] == [True, True]
    with pytest.raises(BuildError, match=r"does not fit pyproject\.toml \(it differs in fastapi\)"):
        export_lock(locked(tmp_path, dependencies=["fastapi"]), Scripted(too_old))
    with pytest.raises(BuildError, match=r"pyproject\.toml cannot be read: "):
        export_lock(locked(tmp_path, dependencies=["fast api"]), Scripted(too_old))


def test_wheel_is_resolved_by_uv_with_its_extras_and_left_out(tmp_path: Path) -> None:
    source = wheel(tmp_path, "s3", "all")
    uv = Scripted("")
    compile_lock(source, uv, "3.11", "web1")
    assert uv.inputs == [f"shop-x[s3,all] @ {source.wheel.as_uri()}\n"]  # type: ignore[union-attr]
    (call,) = uv.calls
    assert call[call.index("--no-emit-package") + 1] == "shop-x"
    assert call[call.index("--python-version") + 1] == "3.11"
