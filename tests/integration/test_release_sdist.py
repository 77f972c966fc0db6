"""Source distributions, built by a "host" that is this machine: who runs what, what is kept, and each refusal."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugins.module_utils.build import uv as uv_module
from plugins.module_utils.build.cache import Cache
from plugins.module_utils.build.platforms import lib_member
from plugins.module_utils.build.request import Platform
from plugins.module_utils.build.uv import BuildError, Uv
from plugins.module_utils.build.wheels import WheelsNeededError, accept
from plugins.module_utils.host import sdist as sdist_module
from plugins.module_utils.host.sdist import Job, SdistError, build
from tests.integration.test_release_build import index_answers

REPOSITORY = Path(__file__).parents[2]
#: What a host has; the user without rights may not be able to run the one that runs this.
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable


def python(code: str) -> str:
    """Return what the host's Python says."""
    return subprocess.run([PYTHON, "-c", f"import sys, sysconfig; print({code})"], capture_output=True, text=True,
                          check=True).stdout.strip()  # fmt: skip


HERE = python("'%d.%d' % sys.version_info[:2]")
INCLUDE = python("sysconfig.get_paths()['include']")
PLATFORM = Platform(HERE, os.uname().machine, ["web1", "web2"])
#: A build backend that needs nothing, in the source distribution itself.
BACKEND = """
import os, zipfile
{top}
def wheel(folder, name, version, files, tag="py3-none-any"):
    file = f"{{name}}-{{version}}-{{tag}}.whl"
    info = f"{{name}}-{{version}}.dist-info"
    files[f"{{info}}/METADATA"] = f"Metadata-Version: 2.1\\nName: {{name}}\\nVersion: {{version}}\\n"
    files[f"{{info}}/WHEEL"] = f"Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: {{tag}}\\n"
    files[f"{{info}}/RECORD"] = "".join(f"{{n}},,\\n" for n in [*files, f"{{info}}/RECORD"])
    with zipfile.ZipFile(os.path.join(folder, file), "w") as out:
        for path, text in files.items():
            out.writestr(zipfile.ZipInfo(path), text)
    return file
def build_wheel(folder, config_settings=None, metadata_directory=None):
{body}
"""
PURE = 'return wheel(folder, "pure", "1.0", {"pure.py": f"uid = {os.getuid()}\\n"})'

NAME = "pure-1.0-py3-none-any.whl"


class Index:
    """A package index of one's own: a folder, a web server, and what was asked for."""

    def __init__(self, root: Path, scratch: Path) -> None:
        self.root, self.scratch, self.url = root, scratch, ""

    def add(self, name: str, file: str, data: bytes) -> str:
        """Offer a file; return its line of a lock."""
        (self.root / "files").mkdir(exist_ok=True)
        (self.root / "files" / file).write_bytes(data)
        page = self.root / "simple" / name / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(data).hexdigest()
        with page.open("a") as out:
            out.write(f'<a href="../../files/{file}#sha256={digest}">{file}</a>\n')
        return f"{name}=={file.split('-')[1].removesuffix('.tar.gz')} --hash=sha256:{digest}\n"

    def sdist(self, body: str, top: str = "", name: str = "pure", requires: str = "[]", **files: str) -> str:
        """Offer a source distribution; return its line of a lock."""
        backend = BACKEND.format(top=top, body=textwrap.indent(body, "    "))
        project = f'[build-system]\nrequires = {requires}\nbuild-backend = "backend"\nbackend-path = ["build"]\n'
        inside = {"pyproject.toml": project, "build/backend.py": backend, **files}
        return self.add(name, f"{name}-1.0.tar.gz", tar(f"{name}-1.0", inside))


def tar(top: str, files: dict[str, str]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as out:
        for path, text in files.items():
            info = tarfile.TarInfo(f"{top}/{path}")
            info.size = len(text.encode())
            out.addfile(info, io.BytesIO(text.encode()))
    return data.getvalue()


def plain_wheel(name: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as out:
        info = f"{name}-1.0.dist-info"
        out.writestr(f"{name}.py", "word = 'helped'\n")
        out.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        out.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        out.writestr(f"{info}/RECORD", "")
    return data.getvalue()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    made = Index(tmp_path / "index", tmp_path)
    made.root.mkdir()
    handler = functools.partial(Quiet, directory=str(made.root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        made.url = f"http://127.0.0.1:{server.server_port}/simple"
        monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
        yield made
        server.shutdown()


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that a host builds in. Builds leave word in it, so they are not shut in by systemd, where it is."""
    monkeypatch.setattr(sdist_module, "SYSTEMD", Path("/nowhere"))
    folder = Path(tempfile.mkdtemp(prefix="test-sdist-", dir="/var/tmp"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def job(order: dict[str, Any], host: Path, **changed: Any) -> Job:
    given = {key: order[key] for key in ("name", "version", "backend", "backend_path", "have")}
    options = {"python": PYTHON, "limit": 60, "parent": host, **changed}
    # As Ansible sends them: under a name of the host's own.
    return Job(**given, sdist=Path(order["sdist"]), tools=Path(order["tools"]), **options)


def try_install(lock: str, cache: Cache, index: Index, sdists: bool = True) -> list[dict[str, Any]]:
    """Install the lock; return what hosts have to build before."""
    try:
        lib_member(lock, PLATFORM, [], cache, Uv(None, index.url), [], sdists)
    except WheelsNeededError as error:
        return error.builds
    return []


def hosts_build(builds: list[dict[str, Any]], cache: Cache, index: Index, host: Path) -> list[str]:
    """Do what the play does: build on the host, bring the results to the controller."""
    results = []
    for order in builds:
        into = Path(order["into"])
        into.mkdir(parents=True)
        found = build(job(order, host), into)
        results.append({"key": order["key"], "host": order["host"], "have": order["have"], "seconds": 1.0, **found})
    assert list(host.glob("release-sdist-*")) == []
    notes = accept(results, cache, Uv(None, index.url))
    # A second build of the same run is given the same results.
    assert accept(results, cache, Uv(None, index.url)) == []
    return notes


def installed(lock: str, cache: Cache, index: Index) -> dict[str, bytes]:
    lib, _ = lib_member(lock, PLATFORM, [], cache, Uv(None, index.url), [], True)
    with tarfile.open(lib, ignore_zeros=True) as archive:
        return {i.name: archive.extractfile(i).read() for i in archive if i.isreg()}  # type: ignore[union-attr]


def test_host_builds_once_and_controller_runs_nothing(
    index: Index, host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = host / "ran"
    lock = index.sdist(PURE, top=f"open({str(ran)!r}, 'a').write('x')")
    cache = Cache(tmp_path / "cache")
    with pytest.raises(BuildError, match=r"(?s)pure 1\.0 has no wheel for .*release_build_sdists: true"):
        try_install(lock, cache, index, sdists=False)
    builds = try_install(lock, cache, index)
    assert [(b["name"], b["version"], b["host"]) for b in builds] == [("pure", "1.0", "web1")]
    assert not ran.exists()
    (note,) = hosts_build(builds, cache, index, host)
    assert f"pure 1.0 was built from source in 1 s, for Python {HERE}" in note
    assert ran.read_text() == "x"
    uid = 65534 if os.geteuid() == 0 else os.geteuid()
    assert installed(lock, cache, index)["lib/pure.py"] == f"uid = {uid}\n".encode()
    assert ran.read_text() == "x"
    # Another lock with the same package: its wheel is there.
    assert try_install(f"{lock}\n# another\n", cache, index) == []
    # And to those who do not want any, it is not given.
    with pytest.raises(BuildError, match="has no wheel for"):
        try_install(lock, cache, index, sdists=False)
    monkeypatch.setattr(uv_module, "find_uv", lambda _: pytest.fail("uv was called"))
    assert try_install(lock, cache, index) == []


def test_each_kind_of_host_builds_for_itself(index: Index, host: Path, tmp_path: Path) -> None:
    lock, cache = index.sdist(PURE), Cache(tmp_path / "cache")
    hosts_build(try_install(lock, cache, index), cache, index, host)
    with pytest.raises(WheelsNeededError) as caught:
        lib_member(lock, Platform(HERE, "aarch64", ["web9"]), [], cache,
                   Uv(None, index.url), [], True)  # fmt: skip
    assert [build["host"] for build in caught.value.builds] == ["web9"]


def test_backend_that_asks_for_more_gets_it_once(index: Index, host: Path, tmp_path: Path) -> None:
    index.add("helper", "helper-1.0-py3-none-any.whl", plain_wheel("helper"))
    asks = "def get_requires_for_build_wheel(config_settings=None):\n    return ['helper>=1']\n"
    body = 'import helper\nreturn wheel(folder, "pure", "1.0", {"pure.py": helper.word})'
    lock, cache = index.sdist(body, top=asks), Cache(tmp_path / "cache")
    assert hosts_build(try_install(lock, cache, index), cache, index, host) == []
    assert len(hosts_build(try_install(lock, cache, index), cache, index, host)) == 1
    assert installed(lock, cache, index)["lib/pure.py"] == b"helped"


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("f'helper>={os.getpid()}'", "No solution|not have helper"),
        ("'helper @ file:///etc/passwd'", "is not a name with versions"),
        ("'-r /etc/passwd'", "is not a name with versions"),
        ("'helper\\n--index-url http://127.0.0.1'", "is not a name with versions"),
    ],
)
def test_wishes_that_are_refused(index: Index, host: Path, tmp_path: Path, asked: str, says: str) -> None:
    index.add("helper", "helper-1.0-py3-none-any.whl", plain_wheel("helper"))
    lock = index.sdist(PURE, top=f"def get_requires_for_build_wheel(config_settings=None):\n    return [{asked}]\n")
    cache = Cache(tmp_path / "cache")

    def deploy() -> None:
        for _ in range(2):
            hosts_build(try_install(lock, cache, index), cache, index, host)

    with pytest.raises(BuildError, match=says):
        deploy()


def test_endless_wishes(index: Index, host: Path, tmp_path: Path) -> None:
    index.add("helper", "helper-1.0-py3-none-any.whl", plain_wheel("helper"))
    asks = "def get_requires_for_build_wheel(config_settings=None):\n    return [f'helper<{os.getpid() + 1000}']\n"
    lock, cache = index.sdist(PURE, top=asks), Cache(tmp_path / "cache")
    hosts_build(try_install(lock, cache, index), cache, index, host)
    with pytest.raises(BuildError, match=r"on web1 it asked for more build requirements again \(helper<"):
        hosts_build(try_install(lock, cache, index), cache, index, host)


def test_wrong_hash_of_a_source(index: Index, host: Path, tmp_path: Path) -> None:
    """With the option on, too: of what the index serves, only what the lock knows is used."""
    lock, cache = index.sdist(PURE), Cache(tmp_path / "cache")
    with pytest.raises(BuildError, match=r"file of pure==1\.0 .* has another hash than the lock file"):
        try_install(f"pure==1.0 --hash=sha256:{'0' * 64}\n", cache, index)
    file = index.root / "files" / "pure-1.0.tar.gz"  # the index still gives the hash of what was there before
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(BuildError, match=r"file of pure==1\.0 .* has another hash than the lock file"):
        try_install(lock, cache, index)
    file.unlink()
    with pytest.raises(BuildError, match=r"The source of pure 1\.0 could not be fetched from http://127.*404"):
        try_install(lock, cache, index)


@pytest.mark.skipif(
    not shutil.which("cc") or not Path(INCLUDE, "Python.h").exists(),
    reason="needs a C compiler and Python's headers",
)
def test_compiled_code_is_the_same_whenever_it_is_built(index: Index, host: Path, tmp_path: Path) -> None:
    body = f"""
    import subprocess
    so = "fast.so"
    flags = os.environ["CFLAGS"].split()
    source = os.path.abspath("fast.c")
    include = {INCLUDE!r}
    subprocess.run(["cc", "-g", *flags, "-shared", "-fPIC", f"-I{{include}}", source, "-o", so], check=True)
    tag = "cp{HERE.replace(".", "")}-cp{HERE.replace(".", "")}-linux_{os.uname().machine}"
    return wheel(folder, "fast", "1.0", {{"fast.so": open(so, "rb").read()}}, tag)
    """
    code = """
    #include <Python.h>
    static const char *where = __FILE__;
    static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "fast", 0, -1, 0};
    PyMODINIT_FUNC PyInit_fast(void) {
        PyObject *made = PyModule_Create(&module);
        PyModule_AddStringConstant(made, "where", where);
        return made;
    }
    """
    files = {"fast.c": textwrap.dedent(code)}
    lock = index.sdist(textwrap.dedent(body), name="fast", **files)
    found = []
    for number in (1, 2):
        cache = Cache(tmp_path / f"cache{number}")
        hosts_build(try_install(lock, cache, index), cache, index, host)
        found.append(installed(lock, cache, index)["lib/fast.so"])
    assert found[0] == found[1]
    (tmp_path / "fast.so").write_bytes(found[0])
    # Where this machine's temporary folder was is nowhere in it.
    assert str(host).encode() not in found[0]
    shown = subprocess.run(
        [PYTHON, "-c", "import fast; print(fast.where)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.strip().endswith("fast-1.0/fast.c")


def test_build_that_fails(index: Index, host: Path, tmp_path: Path) -> None:
    body = "import subprocess\nsubprocess.run(['no-such-compiler', '-c'], check=True)"
    lock, cache = index.sdist(body), Cache(tmp_path / "cache")
    with pytest.raises(SdistError) as caught:
        hosts_build(try_install(lock, cache, index), cache, index, host)
    said = str(caught.value)
    assert "pure 1.0 could not be built from source" in said
    assert "release_build_packages: [build-essential, python3-dev]" in said
    assert "No such file or directory: 'no-such-compiler'" in said
    assert list(host.iterdir()) == []


def test_build_that_hangs_is_ended_with_its_children(index: Index, host: Path, tmp_path: Path) -> None:
    alive = host / "alive"
    child = f"import time\nwhile True:\n    open({str(alive)!r}, 'a').write('x')\n    time.sleep(0.05)"
    body = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])"
    lock, cache = index.sdist(body), Cache(tmp_path / "cache")
    (order,) = try_install(lock, cache, index)
    with pytest.raises(SdistError, match=r"not built from source within 2 s\. .* raise release_build_timeout"):
        build(job(order, host, limit=2), tmp_path)
    before = alive.read_text()
    time.sleep(0.3)
    assert alive.read_text() == before


@pytest.mark.parametrize(
    "body",
    [
        f"os.symlink('/etc/shadow', os.path.join(folder, '{NAME}'))\nreturn '{NAME}'",
        f"os.mkfifo(os.path.join(folder, '{NAME}'))\nreturn '{NAME}'",
        f"return '../../../etc/{NAME}'",
        f"return '{NAME}'",
        "os._exit(0)",
    ],
    ids=["link", "pipe", "outside", "absent", "silent"],
)
def test_what_is_no_wheel_is_not_taken(index: Index, host: Path, tmp_path: Path, body: str) -> None:
    lock, cache = index.sdist(body), Cache(tmp_path / "cache")
    (order,) = try_install(lock, cache, index)
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(SdistError, match=r"pure 1\.0 was built from source, but left no wheel"):
        build(job(order, host), into)
    assert list(into.iterdir()) == []


@pytest.mark.parametrize(
    "made",
    [
        'wheel(folder, "other", "1.0", {})',
        'wheel(folder, "pure", "1.1", {})',
        'wheel(folder, "pure", "1.0", {}, "cp27-cp27m-linux_x86_64")',
        'wheel(folder, "pure", "1.0", {}, "py3-none-win_amd64")',
        'wheel(folder, "pure", "1.0", {"../../evil.py": ""})',
    ],
)
def test_wheel_of_something_else_is_not_kept(index: Index, host: Path, tmp_path: Path, made: str) -> None:
    lock, cache = index.sdist(f"return {made}"), Cache(tmp_path / "cache")
    builds = try_install(lock, cache, index)
    with pytest.raises(BuildError, match=r"is no wheel of pure 1\.0 for Python|The wheel is refused: .* leads out of"):
        hosts_build(builds, cache, index, host)
    assert list((tmp_path / "cache" / "built").iterdir()) == []
    assert json.dumps(builds)


PLAY = """
- hosts: all
  gather_facts: false
  any_errors_fatal: true
  tasks:
    - set_fact: {app_probe: {python: "VERSION", arch: "ARCH"}, cacheable: true}
    - import_role: {name: release, tasks_from: build, rolespec_validate: false}
    - debug: {msg: "{{ inventory_hostname }} has {{ release_id }} {{ release_artifact.lib_path }}"}
"""


def play(folder: Path, index: Index, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the role's build for two hosts of one kind."""
    hosts = {
        name: {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": PYTHON}
        for name in ("web1", "web2")
    }
    settings = {
        "app_name": "tiny",
        "app_source": str(folder / "app"),
        "app_module": "main:app",
        "release_cache": str(folder / "cache"),
        "release_build_sdists": True,
    }
    (folder / "hosts.yml").write_text(json.dumps({"all": {"hosts": hosts, "vars": settings}}))
    (folder / "play.yml").write_text(PLAY.replace("VERSION", HERE).replace("ARCH", os.uname().machine))
    return subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", folder / "hosts.yml", folder / "play.yml",
         *arguments],
        cwd=REPOSITORY, env={**os.environ, "UV_INDEX": index.url, "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg")}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.skipif(
    sdist_module.SYSTEMD.exists() and os.geteuid() == 0,
    reason="systemd keeps builds from leaving word of themselves",
)
def test_one_host_of_a_kind_builds_for_all(
    index: Index, host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not index_answers():
        pytest.skip("no package index is reachable")
    monkeypatch.delenv("UV_CACHE_DIR")  # the engine's packages are in the common one, or come into it
    index.add("helper", "helper-1.0-py3-none-any.whl", plain_wheel("helper"))
    top = f"""
def get_requires_for_build_wheel(config_settings=None):
    open({str(host / "asked")!r}, "a").write("x")
    return ["helper"]
"""
    body = f"import helper\nopen({str(host / 'ran')!r}, 'a').write('x')\n{PURE}"
    lock = index.sdist(body, top=top)
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "main.py").write_text("app = 1\n")
    (tmp_path / "app" / "requirements.txt").write_text(lock)
    foretold = play(tmp_path, index, "--check")
    assert foretold.returncode != 0, foretold.stdout
    assert "pure 1.0 must be built from source on this host before" in foretold.stdout, foretold.stdout
    assert not (host / "asked").exists()
    done = play(tmp_path, index)
    assert done.returncode == 0, done.stdout
    assert (host / "asked").read_text() == "xx"
    assert (host / "ran").read_text() == "x"
    assert "pure 1.0 was built from source in" in done.stdout
    first, second = re.findall(r"web[12] has (\S+ \S+)", done.stdout)
    assert first == second
    again = play(tmp_path, index)
    assert first in again.stdout
    assert "included: " not in again.stdout
    assert (host / "ran").read_text() == "x"
