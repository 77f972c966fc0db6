"""Archives drawn at random, most of them hostile: whatever a host unpacks, nothing outside of its folder changes.

The outside is listed before and after each: names, types, targets, contents, modes. What is taken is looked at on the
disk, member by member. 2,500 archives; 10,000 with FLEET_FULL=1, of which docs/security.md has the outcome.
"""

from __future__ import annotations

import gzip
import io
import os
import random
import re
import shutil
import stat
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from plugins.module_utils.host.archive import ArchiveError, Limits, Rules
from plugins.module_utils.host.extract import extract
from tests.unit.artifacts import Members, member, tar

COUNT = 10_000 if os.environ.get("FLEET_FULL") else 2_500
MEMORY = Path("/dev", "shm")  # a disk would take ten times as long
TOPS = {"lib": ["lib"], "code": ["app", "site"]}
ODD = [
    "", ".", "..", "/", "app", "site", "lib", "manifest.json", ".complete", "other/x", "app/", "app//x", "app/./x",
    "app/../x", "../x", "../../outside/new", "app/../../../outside/new", "lib/../../../outside/new", "{outside}/new",
    "app/\udcff", "app/x\0y", "manifest.json/x", "app/" + "n" * 256, "app" + "/deep" * 300,
]  # fmt: skip
KINDS = [tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.GNUTYPE_SPARSE, b"g", b"9"]
STEPS = ["a", "b", "c", "..", "..", "..", ".", "", "app", "site", "lib"]


@dataclass
class Draw:
    """One archive. `wild` are the chances of a hostile link, of a clash of names, and of a member that is odd."""

    dice: random.Random
    outside: Path
    wild: tuple[float, float, float]
    names: list[str] = field(default_factory=list)

    def members(self, part: str) -> Members:
        """Return a part's members, in any order."""
        found = [self.member(part) for _ in range(self.dice.randrange(1, 9))]
        if part == "code":
            found.append(member("manifest.json", b"{}"))
        self.dice.shuffle(found)
        if self.dice.random() < self.wild[0] / 2:
            chain = self.chain(part)
            if self.dice.random() < 0.3:
                self.dice.shuffle(chain)
            return [*chain, *found]
        return found

    def chain(self, part: str) -> list[tuple[tarfile.TarInfo, bytes]]:
        """Return a link that is short for a deep folder, one that goes up through it, and something below that one.

        Without a look at the first link, the second one seems to stay inside. This got root once.
        """
        top, other = self.dice.choices(TOPS[part], k=2)
        deep = self.dice.choices("efgh", k=self.dice.randrange(1, 6))
        folder, way = "/".join([top, *deep]), "/".join([*deep, "l"])
        return [
            member(f"{folder}/keep"),
            member(f"{folder}/l", "../" * (len(deep) + 1) + other),
            member(f"{top}/r", way + "/.." * self.dice.randrange(1, 7)),
            member(
                f"{top}/r/{self.dice.choice(['outside/new', 'new', 'x/y'])}", self.dice.choice([b"x", None, "file"])
            ),
        ]

    def member(self, part: str) -> tuple[tarfile.TarInfo, bytes]:
        """Return a file, a folder or a link, now and then something else."""
        name = self.name(part)
        self.names.append(name)
        if self.dice.random() < self.wild[2] / 2:
            return member(name, "app/a", type=self.dice.choice(KINDS))
        if self.dice.random() < self.wild[2] / 2:
            return member(name, mode=self.dice.choice([0o4755, 0o2755, 0o1777]))
        match self.dice.randrange(6):
            case 0:
                return member(name, None)
            case 1 | 2:
                return member(name, self.target(name))
            case _:
                content = self.dice.randbytes(self.dice.choice([0, 1, 600]))
                return member(name, content, mode=self.dice.choice([0o644, 0o755]))

    def name(self, part: str) -> str:
        """Return a name of the part; with bad luck one that is there, lies below one that is there, or leads away."""
        if self.dice.random() < self.wild[2]:
            return self.dice.choice(ODD).format(outside=self.outside)
        if self.names and self.dice.random() < self.wild[1]:
            return self.dice.choice(self.names) + self.dice.choice(["", "/a", "/etc/x", "/new"])
        for _ in range(20):
            name = "/".join([self.dice.choice(TOPS[part]), *self.dice.choices("abcd", k=self.dice.randrange(1, 5))])
            if not any(f"{name}/".startswith(f"{n}/") or n.startswith(f"{name}/") for n in self.names):
                break
        return name

    def target(self, name: str) -> str:
        """Return a link's target: mostly another name of the archive, with bad luck anything."""
        if self.dice.random() < self.wild[0]:
            match self.dice.randrange(4):
                case 0:
                    return "../" * self.dice.randrange(7) + self.dice.choice(
                        ["outside", "outside/file", "app", "lib", ""]
                    )
                case 1:
                    return str(self.outside / self.dice.choice(["", "file", "folder"]))
                case 2:
                    return "/".join(self.dice.choices(STEPS, k=self.dice.randrange(1, 8)))
                case _:  # through another member, which may be a link
                    return self.relative(name) + self.dice.choice(["/", "/.", "/..", "/../../..", "/a", "/a/../.."])
        return self.relative(name) if self.dice.random() < 0.8 else self.dice.choice(["a", "b/c", "./a", "."])

    def relative(self, name: str) -> str:
        """Return the way to another member of the same part."""
        same = [
            other for other in self.names if other.partition("/")[0] == name.partition("/")[0] and "\0" not in other
        ]
        return os.path.relpath(f"/{self.dice.choice(same or ['app/a'])}", f"/{os.path.dirname(name)}")


def listing(root: Path) -> dict[str, tuple[int, bytes]]:
    """Return all below a folder: type and mode, content or target."""
    found: dict[str, tuple[int, bytes]] = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                content = os.fsencode(os.readlink(path))
            else:
                content = Path(path).read_bytes() if stat.S_ISREG(mode) else b""
            found[os.path.relpath(path, root)] = (mode, content)
    return found


@pytest.fixture
def world() -> Iterator[Path]:
    """A folder for releases and, beside it, one that nobody may touch."""
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as folder:
        world = Path(folder).resolve()
        outside = world / "outside"
        (outside / "folder").mkdir(parents=True)
        (outside / "file").write_text("canary")
        (outside / "link").symlink_to("file")
        (world / "srv" / "releases").mkdir(parents=True)
        old = os.umask(0o022)
        yield world
        os.umask(old)


def draws(world: Path) -> Iterator[tuple[int, dict[str, Members]]]:
    """Yield archives, by the number that draws each of them again."""
    for number in range(COUNT):
        dice = random.Random(number)  # noqa: S311 (nothing is secret, and a failure has to come again)
        wild = dice.choice([(0, 0, 0), (0.2, 0, 0), (0.4, 0.1, 0), (0.1, 0.2, 0), (0.1, 0.05, 0.06)])
        draw = Draw(dice, world / "outside", wild)
        yield number, {part: draw.members(part) for part in ("lib", "code")}


def unpacked(into: Path, parts: dict[str, Members]) -> str:
    """Unpack both parts as a host does; return why that was refused, or nothing."""
    into.mkdir()
    try:
        for part, members in parts.items():
            data = gzip.compress(tar(members, last=part == "code"), 1)
            extract(io.BytesIO(data), into, Rules(part, Limits(1 << 20, 1000)))
    except (ArchiveError, OSError, ValueError) as error:  # Python takes no NUL
        return f"{'' if isinstance(error, ArchiveError) else 'the kernel says: '}{error}"
    return ""


def check_taken(into: Path, parts: dict[str, Members]) -> None:
    """Each member is there as it was meant; each path resolves inside; no link is reached through another one."""
    meant = {info.name.removesuffix("/"): (info, data) for members in parts.values() for info, data in members}
    own = {top: [top] if top == "lib" else ["app", "site", "manifest.json"] for top in os.listdir(into)}
    found = listing(into)
    implied = {os.path.dirname(name) for name in found}
    for name, (mode, content) in found.items():
        path = into / name
        end = os.path.realpath(path)
        assert end.startswith(f"{into}/")
        assert os.path.relpath(end, into).partition("/")[0] in own[name.partition("/")[0]]  # each part by itself
        if name not in meant:
            assert stat.S_ISDIR(mode)
            assert name in implied
        elif stat.S_ISLNK(mode):
            target = meant.pop(name)[0].linkname
            assert content == os.fsencode(target)
            here = path.parent
            for step in target.split("/")[:-1]:
                here /= step
                assert not here.is_symlink()
        else:
            info, data = meant.pop(name)
            assert (stat.S_ISDIR(mode), content) == (info.isdir(), data)
            assert stat.S_IMODE(mode) == (0o755 if info.isdir() or info.mode & 0o100 else 0o644)
    assert not meant


def reason(said: str) -> str:
    """Return what kind of outcome this is, without the names."""
    kinds = {
        "target": "empty, too long", "through a link": "leads through",
        "link out": "is a link to .* (leads out|release itself)",
        "below a link": "lies below the link|is a link, and other members", "twice": "is there twice",
        "below a file": "lies below the file|is a file, and",
        "name": "leads out|plain name|UTF-8|component|or a target|must be a|at whose top|deep",
        "kind": "allowed are|PAX|has mode",
    }  # fmt: skip
    return next((kind for kind, text in kinds.items() if re.search(text, said)), said or "taken")


@pytest.mark.fault(50)
def test_nothing_outside_of_a_release_is_changed_by_unpacking_it(world: Path) -> None:
    into = world / "srv" / "releases" / "new"
    before, outcomes = listing(world), Counter[str]()
    for number, parts in draws(world):
        said = unpacked(into, parts)
        if not said:
            check_taken(into, parts)
        shutil.rmtree(into)
        assert listing(world) == before, f"archive {number}: {said or 'taken'}"
        outcomes[reason(said)] += 1
    print(f"\n{COUNT} archives: {dict(outcomes.most_common())}")
    # Neither is all refused, nor does anything of it hardly come up.
    assert 0.25 * COUNT < outcomes["taken"] < 0.6 * COUNT
    assert set(outcomes) == {
        "taken", "through a link", "link out", "twice", "below a link", "below a file", "name", "kind", "target"
    }  # fmt: skip
    assert min(outcomes.values()) > COUNT // 1000


@pytest.mark.fault(50)
def test_nothing_outside_is_changed_even_if_everything_was_allowed(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel alone keeps what is written in its folder: were there a hole in the rules, it would lead nowhere."""
    monkeypatch.setattr(Rules, "take", lambda *_: None)
    monkeypatch.setattr(Rules, "finish", lambda *_: None)
    into = world / "srv" / "releases" / "new"
    before, refused = listing(world), 0
    for number, parts in draws(world):
        refused += unpacked(into, parts).startswith("the kernel says: ")
        shutil.rmtree(into)
        assert listing(world) == before, f"archive {number}"
    assert refused > COUNT // 10
