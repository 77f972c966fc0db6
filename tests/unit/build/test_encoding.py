"""Files that are no UTF-8 are named, and what is advised makes them so."""

import codecs
import subprocess
from pathlib import Path

import pytest

from plugins.module_utils.build.encoding import read_text
from plugins.module_utils.build.uv import BuildError

TEXT = "fastapi  # für später, 5 €\n"


@pytest.mark.fault(72)
@pytest.mark.parametrize(
    ("name", "data", "looks"),
    [
        ("requirements.txt", TEXT.encode("utf-16"), "UTF-16"),
        ("requirements.txt", codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), "UTF-16"),
        ("requirements.txt", TEXT.encode("utf-16-le"), "UTF-16LE"),
        ("requirements.txt", TEXT.encode("utf-16-be"), "UTF-16BE"),
        ("my pyproject.toml", TEXT.replace(", 5 €", "").encode("latin-1"), "ISO-8859-1"),
        ("pyproject.toml", TEXT.encode("cp1252"), "WINDOWS-1252"),
        ("pyproject.toml", codecs.BOM_UTF8 + TEXT.encode(), "a byte order mark"),
    ],
)
def test_other_encoding_is_named_and_the_advice_works(tmp_path: Path, name: str, data: bytes, looks: str) -> None:
    file = tmp_path / name
    file.write_bytes(data)
    with pytest.raises(BuildError) as refused:
        read_text(file)
    message, _unused, command = str(refused.value).partition(" Run in its folder: ")
    assert str(file) in message
    assert f" {looks}" in message
    subprocess.run(["bash", "-ec", command], cwd=tmp_path, check=True, capture_output=True)
    assert read_text(file) in {TEXT, TEXT.replace(", 5 €", "")}
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_mark_of_utf_8_is_no_part_of_a_requirements_file(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_bytes(codecs.BOM_UTF8 + TEXT.encode())
    assert read_text(tmp_path / "requirements.txt") == TEXT
