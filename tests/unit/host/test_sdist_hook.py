"""The program that builds a wheel on a host: what a backend lacks, and which Python scripts start with."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

from plugins.module_utils.host.sdist_hook import lacking, own_scripts


def test_what_a_backend_lacks(tmp_path: Path) -> None:
    (tmp_path / "Foo_Bar-1.0.dist-info").mkdir()
    assert lacking(["foo-bar", "FOO.BAR", "foo-bar>=2", "other", "had>=1"], ["had>=1"], tmp_path) == [
        "foo-bar>=2",
        "other",
    ]


def test_scripts_start_with_the_hosts_python(tmp_path: Path) -> None:
    (tmp_path / "tool").write_bytes(b"#!/controller/python3\nprint(1)\n")
    (tmp_path / "tool").chmod(0o755)
    (tmp_path / "binary").write_bytes(b"\x7fELF#!python")
    own_scripts(tmp_path)
    assert (tmp_path / "tool").read_text() == f"#!{sys.executable}\nprint(1)\n"
    assert stat.S_IMODE((tmp_path / "tool").stat().st_mode) == 0o755
    assert (tmp_path / "binary").read_bytes() == b"\x7fELF#!python"
    own_scripts(tmp_path / "absent")
