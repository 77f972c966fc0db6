"""What a release's archive may hold: the same for the controller, where an artifact enters, and for hosts."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import re
import struct
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import pytest

from plugins.module_utils.build.artifact import Entry, write_part
from plugins.module_utils.build.split import split
from plugins.module_utils.build.uv import BuildError
from plugins.module_utils.host import tar as tar_module
from plugins.module_utils.host.archive import ALWAYS, RATIO_MAX, ArchiveError, Limits, Rules, TarMember, ceiling
from plugins.module_utils.host.extract import extract
from plugins.module_utils.host.tar import gzip_header, read_part
from plugins.module_utils.host.unpack import UnpackError, read_marker, unpack
from tests.unit.artifacts import MANIFEST, Members, manifest_of, member, sent, tar, write

DEEP = "a/b/c/d/e/f"


def pax(name: str, **headers: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, b"x", pax_headers={key.replace("__", "."): text for key, text in headers.items()})


#: What root was got with: each link stays inside when its text alone is looked at.
TO_ROOT = [
    member(f"app/{DEEP}/keep"),
    member("site/keep"),
    member(f"app/{DEEP}/l", "../../../../../../../site"),
    member("app/r", f"{DEEP}/l/../../../../../../.."),
    member("app/r/etc/systemd/system/multi-user.target.wants/x.service", "/srv/shop/releases/x/app/x.service"),
]
#: Members of the code part, and what is said of them, the name first.
REFUSED: dict[str, tuple[Members, str]] = {
    "links that lead to /": (
        TO_ROOT, "'app/r/etc/systemd/system/multi-user.target.wants/x.service' lies below the link 'app/r'",
    ),
    "links that lead to /, without the last": (
        TO_ROOT[:4], rf"'app/r' is a link to '{DEEP}/l/.*', which leads through the link 'app/{DEEP}/l'",
    ),
    "links that lead to /, backwards": (TO_ROOT[::-1], "'app/r' is a link, and other members lie below it"),
    "app is a link": ([member("app", "site")], "'app' is a link, but app must be a folder"),
    "app is a file": ([member("app")], "'app' is a file, but app must be a folder"),
    "manifest is a link": ([member("manifest.json", "app/x")], "'manifest.json' is a link, but .* must be a file"),
    "manifest is a folder": ([member("manifest.json", None)], "'manifest.json' is a folder, but .* must be a file"),
    "below the manifest": ([member("manifest.json/x")], "'manifest.json/x' is a file, but manifest.json must be"),
    "manifest twice": ([member("manifest.json")], "'manifest.json' is there twice"),
    "manifest of 2 MiB": ([member("manifest.json", bytes(2 << 20))], "'manifest.json' is a file of 2097152 bytes"),
    "name of 300": ([member(f"app/{'n' * 296}")], r"'app/n+…n+' has a component of 296 bytes; 255 are allowed"),
    "name of 300, PAX": ([member(f"app/{'n' * 296}")], r"'app/n+…n+' is a member with a PAX header"),
    "long path": ([member("app" + "/folder" * 200)], "'app/folder.*' is a name or a target of 1403 bytes"),
    "very long path": ([member("app" + "/folder" * 10_000)], "'app/folder.*' is a name or a target of 70003 bytes"),
    "deep path": ([member("app" + "/f" * 200)], "'app/f/f.*' lies 200 folders deep"),
    "long target": ([member("app/x", "y/" * 1000)], "'y/y/.*' is a name or a target of 2000 bytes"),
    "hard link": ([member("app/x", "app/y", type=tarfile.LNKTYPE)], "'app/x' is a hard link"),
    "device": ([member("app/x", type=tarfile.CHRTYPE)], "'app/x' is a device"),
    "block device": ([member("app/x", type=tarfile.BLKTYPE)], "'app/x' is a device"),
    "FIFO": ([member("app/x", type=tarfile.FIFOTYPE)], "'app/x' is a FIFO"),
    "contiguous file": ([member("app/x", type=tarfile.CONTTYPE)], "'app/x' is of type '7'"),
    "file of version 7": ([member("app/x", type=tarfile.AREGTYPE)], r"'app/x' is of type '\\x00'"),
    "GNU sparse": ([member("app/x", type=tarfile.GNUTYPE_SPARSE)], "'app/x' is a sparse file"),
    "PAX sparse 0.0": ([pax("app/x", GNU__sparse__size="9" * 12)], "'app/x' is a member with a PAX header"),
    "PAX sparse 0.1": (
        [pax("GNUSparse/x", GNU__sparse__name="app/y", GNU__sparse__map="0,1")], "'app/y' is a member with a PAX",
    ),
    "PAX sparse 1.0": ([pax("app/x", GNU__sparse__major="1")], "'app/x' is a member with a PAX header"),
    "PAX time": ([pax("app/x", mtime="1.5")], "'app/x' is a member with a PAX header"),
    "PAX path": ([pax("app/x", path="/etc/cron.d/x")], "'/etc/cron.d/x' is a member with a PAX header"),
    "PAX size": ([pax("app/x", size="-1")], "'app/x' is a member with a PAX header"),
    "set-user-id": ([member("app/x", mode=0o4755)], "'app/x' has mode 4755"),
    "set-group-id": ([member("app/x", None, mode=0o2755)], "'app/x' has mode 2755"),
    "sticky": ([member("app/x", None, mode=0o1777)], "'app/x' has mode 1777"),
    "NUL": ([member("app/x\0y")], r"'app/x\\x00y' is no plain name"),
    "no name": ([member("")], "'' is no plain name"),
    "empty component": ([member("app//x")], "'app//x' is no plain name"),
    "dot": ([member("./app/x")], r"'\./app/x' is no plain name"),
    "file with a slash": ([member("app/x/")], "'app/x/' is no plain name"),
    "dots": ([member("app/../../x")], r"'app/\.\./\.\./x' leads out of the release"),
    "absolute": ([member("/etc/passwd")], "'/etc/passwd' leads out of the release"),
    "no UTF-8": ([member("app/\udcff")], r"'app/\\udcff' is no UTF-8"),
    "other place": ([member("other/x")], "'other/x' is in the code part, at whose top may stand: app, "),
    "marker": ([member(".complete")], r"'\.complete' is in the code part, at whose top may stand: app, "),
    "other part": ([member("lib/x")], "'lib/x' is in the code part, at whose top may stand: app, "),
    "file twice": ([member("app/x"), member("app/x")], "'app/x' is there twice"),
    "folder twice": ([member("app/x", None), member("app/x", None)], "'app/x' is there twice"),
    "link twice": ([member("app/x", "y"), member("app/x", "z")], "'app/x' is there twice"),
    "file over link": ([member("app/x", "y"), member("app/x")], "'app/x' is there twice"),
    "folder over file": ([member("app/x"), member("app/x", None)], "'app/x' is there twice"),
    "file over folder": ([member("app/x/y"), member("app/x")], "'app/x' is a file, and other members lie below it"),
    "below a file": ([member("app/x"), member("app/x/y/z")], "'app/x/y/z' lies below the file 'app/x'"),
    "below a link": (
        [member("app/y", None), member("app/x", "y"), member("app/x/z")], "'app/x/z' lies below the link 'app/x'",
    ),
    "link over folder": (
        [member("app/x/z"), member("app/x", "y")], "'app/x' is a link, and other members lie below it",
    ),
    "absolute link": ([member("app/x", "/etc/passwd")], "'app/x' is a link to '/etc/passwd', which leads out of"),
    "link out": ([member("app/x", "../../etc")], r"'app/x' is a link to '\.\./\.\./etc', which leads out of"),
    "link to the marker": ([member("app/x", "../.complete")], "'app/x' is a link .* leads out of the code part"),
    "link to the other part": ([member("app/x", "../lib/x")], "'app/x' is a link .* leads out of the code part"),
    "link by way of the other part": ([member("app/x", "../lib/../app/y")], "'app/x' is a link .* out of the code"),
    "link to no UTF-8": ([member("app/x", "\udcff")], r"'app/x' is a link to '\\udcff', which is .* no UTF-8"),
    "link to the release": ([member("app/x", "..")], "'app/x' is a link .* which is the release itself"),
    "link without a target": ([member("app/x", "")], "'app/x' is a link to '', which is empty"),
    "link through a link that comes later": (
        [member("app/x", "y/z"), member("app/y", "a")], "'app/x' is a link to 'y/z', which leads through .* 'app/y'",
    ),
    "link into a link": ([member("app/x", "y/"), member("app/y", "a")], "'app/x' is a link .* the link 'app/y'"),
    "link onto a link": ([member("app/x", "y/."), member("app/y", "a")], "'app/x' is a link .* the link 'app/y'"),
    "link through itself": ([member("app/x", "x/..")], "'app/x' is a link to 'x/..', which .* the link 'app/x'"),
    "folder with data": ([member("app/x", bytes(512), type=tarfile.DIRTYPE)], "'app/x' is a folder of 512 bytes"),
}  # fmt: skip
LIB = [member("lib/x")]


def doors(tmp_path: Path, lib: bytes, code: bytes) -> tuple[str, str]:
    """Return what the controller says of an artifact, and a host of its parts; nothing may be left of it."""
    artifact = tmp_path / "artifact.tar.gz"
    artifact.write_bytes(lib + code)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(BuildError) as entry:
        split(artifact, out)
    assert list(out.iterdir()) == []
    order, files = sent(tmp_path, lib=lib, code=code)
    with pytest.raises(UnpackError, match="Nothing was changed") as host:
        unpack(order, files)
    assert [path.name for path in (order.root / "releases").iterdir()] == [".lock"]
    return str(entry.value), str(host.value)


@pytest.mark.fault(50)
@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name_on_the_controller_and_on_hosts(tmp_path: Path, case: str) -> None:
    members, said = REFUSED[case]
    form = tarfile.PAX_FORMAT if "PAX" in case else tarfile.GNU_FORMAT
    lib = tar(LIB, last=False)
    code = tar([*members, member("manifest.json", manifest_of("0" * 64))], last=True, form=form)
    for text in doors(tmp_path, gzip.compress(lib), gzip.compress(code)):
        assert re.search(said, text), text
        assert len(text) < 1500
        assert text.isprintable()


def inflated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which every piece that is inflated adds its size."""
    sizes: list[int] = []
    read = tar_module.GzipMember.readinto

    def counted(self: tar_module.GzipMember, buffer: Any) -> int:
        sizes.append(read(self, buffer))
        return sizes[-1]

    monkeypatch.setattr(tar_module.GzipMember, "readinto", counted)
    return sizes


ZEROS = bytes(1 << 20)
_engine = zlib.compressobj(9, zlib.DEFLATED, -15)
PACKED_ZEROS = _engine.compress(ZEROS) + _engine.flush(zlib.Z_FULL_FLUSH)


def packed(pieces: Iterator[bytes], header: bytes = b"") -> bytes:
    """Return a gzip member with a header of its own. Of a bomb's zeros, the CRC is wrong: nobody may read so far."""
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    crc = size = 0
    out = [header or b"\x1f\x8b\x08\0\0\0\0\0\0\xff"]
    for piece in pieces:
        crc, size = 0 if piece is ZEROS else zlib.crc32(piece, crc), size + len(piece)
        out.append(PACKED_ZEROS if piece is ZEROS else engine.compress(piece) + engine.flush(zlib.Z_FULL_FLUSH))
    return b"".join([*out, engine.flush(), struct.pack("<LL", crc, size & 0xFFFFFFFF)])


def zeros(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield ZEROS


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    return member(name, type=kind, size=size)[0].tobuf(tarfile.GNU_FORMAT)


def one_file() -> Iterator[bytes]:
    yield header("app/zeros", 512 << 20)
    yield from zeros(512)


def many_files() -> Iterator[bytes]:
    for number in range(160):
        yield header(f"app/zeros{number}", 1 << 20)
        yield from zeros(1)


def others() -> Iterator[bytes]:
    """What is large by itself: with it, a bomb seems to be packed no more than a hundredfold."""
    yield header("app/weights", 8 << 20)
    yield random.Random(1).randbytes(8 << 20)  # noqa: S311


def behind_others() -> Iterator[bytes]:
    yield from others()
    yield from many_files()


def before_others() -> Iterator[bytes]:
    yield from one_file()
    yield from others()


def many_folders() -> Iterator[bytes]:
    """Their headers are all that there is; the sum of a header's bytes is in it."""
    block, found = header("app/00000/", 0, tarfile.DIRTYPE), []
    for number in range(50_000):
        name = b"%05d" % number
        total = sum(block) - sum(block[148:156]) + 256 + sum(name) - sum(b"00000")
        found.append(block[:4] + name + block[9:148] + b"%06o\0 " % total + block[156:])
    yield b"".join(found)


def long_name() -> Iterator[bytes]:
    yield header("././@LongLink", 160 << 20, tarfile.GNUTYPE_LONGNAME)
    yield from zeros(160)


def long_names() -> Iterator[bytes]:
    block = header("././@LongLink", 0, tarfile.GNUTYPE_LONGNAME) * 1024
    for _ in range(320):
        yield block


def long_pax() -> Iterator[bytes]:
    yield header("././@PaxHeader", 160 << 20, tarfile.XHDTYPE)
    yield b"167772160 path=app/pax\n"
    yield from zeros(160)


def long_end() -> Iterator[bytes]:
    yield header("app/x", 0)
    yield from zeros(160)


@pytest.mark.fault(50)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (one_file, "'app/zeros' goes beyond what its part may unpack to"),
        (many_files, "'app/zeros[0-9]+' (is packed as a bomb is|goes beyond what its part may unpack to)"),
        (behind_others, "'app/zeros[0-9]+' (is packed as a bomb is|goes beyond what its part may unpack to)"),
        (before_others, "'app/zeros' (is packed as a bomb is|goes beyond what its part may unpack to)"),
        (many_folders, "'app/[0-9a-f]+' goes beyond what its part may unpack to"),
        (long_name, r"is a name or a target of 167772159 bytes"),
        (long_names, "is a name or a target of -1 bytes"),
        (long_pax, "'app/pax' is a member with a PAX header"),
        (long_end, "there is something behind its end"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_bomb_is_refused_before_it_is_inflated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Callable[[], Iterator[bytes]], said: str
) -> None:
    """Some 0.5 MB hold 512 MiB, others 160; not 170 are inflated, on the controller and on the host together."""
    code = packed(content())
    sizes = inflated(monkeypatch)
    for text in doors(tmp_path, gzip.compress(tar(LIB, last=False)), code):
        assert re.search(said, text), text
    assert sum(sizes) < 170 << 20


@pytest.mark.fault(50)
def test_large_dependencies_do_not_cover_a_bomb_in_the_code(tmp_path: Path) -> None:
    """Each part has a ceiling of its own: 50,000 folders are too many for 50 kB."""
    lib = gzip.compress(tar([member("lib/large", random.Random(1).randbytes(4 << 20))], last=False), 1)  # noqa: S311
    (tmp_path / "a.tar.gz").write_bytes(lib + packed(many_folders()))
    with pytest.raises(BuildError, match=r"'app/\d+' goes beyond what its part may unpack to"):
        split(tmp_path / "a.tar.gz", tmp_path)


@pytest.mark.fault(50)
@pytest.mark.parametrize(
    ("size", "files", "said"),
    [
        (5000 << 10, 3, "'app/2' goes beyond what its part says that it unpacks to: 5,120,000 bytes, 3 files"),
        (8 << 20, 2, "'app/1' goes beyond what its part says that it unpacks to: 8,388,608 bytes, 2 files"),
        ((8 << 20) + 4096, 5, "'manifest.json' goes beyond what its part says that it unpacks to: 8,392,704 bytes, 5"),
        (9 << 20, 9, "its code part unpacks to 8,392,704 bytes and 6 files, and says 9,437,184 and 9"),
        (
            1 << 40,
            4,
            "its code part says that it unpacks to 1,099,511,627,776 bytes and 4 files; so few packed bytes may unpack",
        ),
        (
            0,
            10**8,
            "its code part says that it unpacks to 0 bytes and 100,000,000 files; so few packed bytes may unpack",
        ),
    ],
)
def test_part_that_does_not_say_the_truth_of_itself(tmp_path: Path, size: int, files: int, said: str) -> None:
    lib = tar(LIB, last=False)
    manifest = manifest_of(zlib.crc32(lib).to_bytes(32, "big").hex())
    members = [member(f"app/{number}", bytes(2 << 20)) for number in range(4)]
    code = packed(iter([tar([*members, member("manifest.json", manifest)], last=True)]), gzip_header(size, files))
    artifact = tmp_path / "a.tar.gz"
    artifact.write_bytes(gzip.compress(lib) + code)
    with pytest.raises(BuildError, match=said):
        split(artifact, tmp_path)


def test_part_says_what_it_unpacks_to_and_is_taken(tmp_path: Path) -> None:
    content = [Entry("app/x", data=bytes(5000)), Entry("app/y", data=b""), Entry("manifest.json", data=b"{}")]
    made = write_part(content, tmp_path / "code.tar.gz", "code")
    data = (tmp_path / "code.tar.gz").read_bytes()
    assert data.startswith(gzip_header(made.bytes, made.files))
    assert (made.bytes, made.files) == (8192 + 4096, 4)
    with (tmp_path / "code.tar.gz").open("rb") as stream:
        limits = tar_module.limits_of(stream, len(data), "code")
        assert limits == Limits(made.bytes, made.files, exact=True)
        rules = Rules("code", limits)
        assert len(list(read_part(stream, rules))) == made.files
        rules.finish()
    with gzip.open(tmp_path / "code.tar.gz") as plain, tarfile.open(fileobj=cast("IO[bytes]", plain)) as archive:
        assert archive.getnames() == ["app", "app/x", "app/y", "manifest.json"]


@pytest.mark.fault(50)
def test_damaged_anywhere(tmp_path: Path) -> None:
    """Cut off at any place, or with any bit of its headers turned, an artifact is refused; no other error comes."""
    path = write(tmp_path, tar([member("lib/x", os.urandom(40))], last=False), [member("app/l", "x"), member("app/x")])
    data = path.read_bytes()
    out = tmp_path / "out"
    out.mkdir()
    assert split(path, out)[2].id == MANIFEST["id"]
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(BuildError, match=r"is no whole artifact of a release build: .*Build it again"):
            split(path, out)
    path.write_bytes(data + b"\0")
    with pytest.raises(BuildError, match="there is something behind its end"):
        split(path, out)
    plain = tar([member("app/l", "x"), member("app/x", b"12345"), member("manifest.json")], last=True)
    for at in {*range(2 * 512)} - {*range(148, 156), *range(512 + 148, 512 + 156)}:  # the checksums have filling bytes
        broken = bytearray(plain)
        broken[at] ^= 1 << at % 8
        with pytest.raises(ArchiveError):
            extract(io.BytesIO(gzip.compress(broken, 1)), Path(tempfile.mkdtemp(dir=out)), Rules("code", Limits()))


@pytest.mark.fault(50)
@pytest.mark.parametrize(
    "number",
    [
        b"-0000000001\0",
        b"+0000000001\0",
        b"0o000000001\0",
        b"1_000000000\0",
        b"\x80" + bytes(10) + b"\1",
        b"\xff" * 12,
        bytes(12),
        b"0000001 0001",
        b"9" * 12,
    ],
)
def test_numbers_that_are_none(tmp_path: Path, number: bytes) -> None:
    """A size below zero had tarfile of many Pythons read for ever (CVE-2025-8194)."""
    block = bytearray(header("app/x", 0))
    block[124:136] = number
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    for text in doors(tmp_path, gzip.compress(tar(LIB, last=False)), gzip.compress(bytes(block) + bytes(2048))):
        assert "'app/x' has a size that is no octal number" in text


def test_targets_of_all_links_are_followed_only_up_to_a_length() -> None:
    """Each is followed step by step, and a thousand bytes of `a/../` pack to a few."""
    rules = Rules("lib", Limits())
    rules.take(TarMember("lib", "folder"))
    links = [TarMember(f"lib/{number}", "link", 0, "a/../" * 204 + "abcd") for number in range((1 << 14) + 1)]
    for link in links[:-1]:
        rules.take(link)
    with pytest.raises(ArchiveError, match=r"'lib/16384' is a link, and the targets of all are longer than 16 MiB"):
        rules.take(links[-1])


def test_manifest_is_what_is_relied_on(tmp_path: Path) -> None:
    lib = tar(LIB, last=False)
    assert split(write(tmp_path, lib, []), tmp_path)[2].path == ["app", "lib"]
    for about, said in [
        ({"format": 2}, "wrong: format"),
        ({"id": "../../etc"}, "wrong: id"),
        ({"id": None}, "TypeError"),
        ({"python": "3.11; rm"}, "wrong: python"),
        ({"path": ["app", "../../etc"]}, "wrong: path"),
        ({"path": "app"}, "wrong: path"),
        ({"path": {"app": 1}}, "wrong: path"),
        ({"path": []}, "wrong: path"),
        ({"packages": {"gunicorn": 1}}, "wrong: packages"),
        ({"packages": []}, "AttributeError"),
        ({"packages": {"gunicorn": "27\x1b[2J"}}, "wrong: packages"),
        ({"packages": {"g\nunicorn": "27"}}, "wrong: packages"),
        ({"source": {"version": "v" * 256}}, "wrong: source"),
        ({"module": "main:app\x1b[2J"}, "wrong: module"),
        ({"source": {}}, "KeyError: 'version'"),
        ({"module": "main:app\nLD_PRELOAD=/x"}, "wrong: module"),
        ({"lib_content": "0" * 64}, "was written for other dependencies"),
    ]:
        with pytest.raises(BuildError, match=f"is no whole artifact of a release build: its manifest.json .*{said}"):
            split(write(tmp_path, lib, [], about=about), tmp_path)
    for text in (b"", b"\xff", b"[]", b"1", b"[" * 100_000, json.dumps({"format": 1}).encode()):
        artifact = tmp_path / "artifact.tar.gz"
        artifact.write_bytes(gzip.compress(lib) + gzip.compress(tar([member("manifest.json", text)], last=True)))
        with pytest.raises(BuildError, match=r"its manifest\.json is none of format 1"):
            split(artifact, tmp_path)


#: What sources and packages really hold.
GOOD: list[tuple[tarfile.TarInfo, bytes]] = [
    member("app", None),
    member("app/main.py", b"app = 1\n"),
    member("app/run", b"#!/bin/sh\n", mode=0o775),
    member("app/libfoo.so", "libfoo.so.1"),  # as C libraries are installed: a link to a link, each judged by itself
    member("app/libfoo.so.1", "libfoo.so.1.2.3"),
    member("app/libfoo.so.1.2.3", b"elf"),
    member("app/current", "releases/2"),
    member("app/releases/2/page.html", b"2"),
    member("app/releases", None),  # after what it holds
    member("app/include/foo", "."),
    member("app/templates/base.html", "../../site/shop/base.html"),
    member("site/shop/base.html", b"<html>"),
    member("app/left_out", "tests/data/of.csv"),  # its target is left out by release_exclude
    member("app/static", "../app/./public//"),
    member("app/public/back", ".."),
    member("app/loop", "pool"),
    member("app/pool", "loop"),
    member("app/äöü 'x' \\ \n.txt", b"odd"),
    member("app/" + "n" * 255, b"long"),
    member("app/" + "d" * 200 + "/" + "e" * 200 + "/x", b"longer"),
    member("app/long", "d" * 200 + "/" + "e" * 200 + "/x"),
    member("app/empty", b""),
    member("app/nothing", None),
]


@pytest.mark.fault(50)
def test_good_archive_is_taken_as_tarfile_reads_it(tmp_path: Path) -> None:
    artifact = write(tmp_path, tar([member("lib/_foo.so", "foo.libs/x.so"), *LIB], last=False), GOOD)
    lib, code, _ = split(artifact, tmp_path)
    packed_parts = {part: (tmp_path / f"{part}.tar.gz").read_bytes() for part in ("lib", "code")}
    assert b"".join(packed_parts.values()) == artifact.read_bytes()
    (tmp_path / "host").mkdir()
    order, files = sent(tmp_path / "host", **packed_parts)
    order.artifact.update({f"{part}_bytes": one.bytes for part, one in (("lib", lib), ("code", code))})
    order.artifact.update({f"{part}_files": one.files for part, one in (("lib", lib), ("code", code))})
    assert unpack(order, files) == []
    assert read_marker(order.folder)
    paths = {str(path.relative_to(order.folder)): path for path in order.folder.rglob("*")}
    with tarfile.open(artifact) as archive:
        for info in archive:
            path = paths.pop(info.name)
            if info.issym():
                assert os.readlink(path) == info.linkname
                continue
            assert (path.is_dir(), path.is_file()) == (info.isdir(), info.isreg())
            assert path.stat().st_mode & 0o7777 == (0o755 if info.isdir() or info.mode & 0o100 else 0o644)
            if info.isreg():
                assert path.read_bytes() == archive.extractfile(info).read()  # type: ignore[union-attr]
    assert all(path.is_dir() or name == ".complete" for name, path in paths.items()), paths


def test_parts_of_earlier_versions_say_nothing_of_themselves_and_are_taken(tmp_path: Path) -> None:
    """Up to a ceiling, which is the same for all parts."""
    lib, size = tar(LIB, last=False), 60 << 20
    for count, taken in ((size, True), (2 * size, False)):
        artifact = write(tmp_path, lib, [member("app/x", bytes(count))])
        limit = ceiling(artifact.stat().st_size)
        assert limit.bytes == ALWAYS + RATIO_MAX * artifact.stat().st_size
        assert (count < limit.bytes) is taken
        if taken:
            assert split(artifact, tmp_path)[1].bytes >= count
        else:
            with pytest.raises(
                BuildError, match=r"'app/x' goes beyond what its part may unpack to: [\d,]+ bytes, [\d,]+ files"
            ):
                split(artifact, tmp_path)


def test_host_unpacks_no_more_than_the_controller_has_found(tmp_path: Path) -> None:
    order, files = sent(tmp_path, lib=gzip.compress(tar(LIB, last=False)), code=gzip.compress(tar(GOOD, last=True)))
    order.artifact["code_files"] = 20
    with pytest.raises(UnpackError, match=r"'app/.*' goes beyond what its part may unpack to: 16,777,216 bytes, 20"):
        unpack(order, files)
    assert not order.folder.exists()


def test_file_system_that_takes_no_such_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on eCryptfs (143 bytes), or where upper and lower case are the same."""
    order, files = sent(
        tmp_path,
        lib=gzip.compress(tar(LIB, last=False)),
        code=gzip.compress(tar([member("app/a/X"), member("manifest.json")], last=True)),
    )
    real = os.open

    def picky(path: Any, *args: Any, **options: Any) -> int:
        if path == b"X":
            raise OSError(36, "File name too long", "X")
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", picky)
    with pytest.raises(OSError, match=r"File name too long: 'app/a/X'"):
        unpack(order, files)
    assert not order.folder.exists()


def test_zeros_here_and_there_in_a_large_file_are_no_bomb(tmp_path: Path) -> None:
    """More of them than a part may have in one stretch."""
    content = b"".join(os.urandom(1 << 19) + bytes(6 << 20) for _ in range(12))
    made = write_part(
        [Entry("app/weights", data=content), Entry("manifest.json", data=b"{}")], tmp_path / "code.tar.gz", "code"
    )
    assert made.bytes > len(content) > ALWAYS
