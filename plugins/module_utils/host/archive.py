"""What a release's archive may hold: one definition for the build, for an artifact's entry, and for hosts.

An artifact may come from anywhere, and a host unpacks it as root. So a part (PARTS) holds regular files, folders and
symlinks below its own folders, nothing twice and nothing below a link. A link's target stays within the part and is
reached through no other link: then the kernel resolves it as its text reads, and what one part holds cannot change
where the other part's names lead.

Standard library only, Python >= 3.10: it travels to hosts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

MANIFEST = "manifest.json"
#: What stands at the top of each part.
PARTS: dict[str, tuple[str, ...]] = {"lib": ("lib",), "code": ("app", "site", MANIFEST)}

NAME_MAX = 255  # bytes of one component: Linux
PATH_MAX = 1024  # bytes of a name or a target: a quarter of what Linux takes, for the folders above it
DEPTH_MAX = 100  # components: the host holds one open folder for each
FILE_MAX = (8 << 30) - 1  # bytes: what a tar header says in octal digits
MANIFEST_MAX = 1 << 20  # bytes
BYTES_MAX = 32 << 30  # of a part, unpacked: PyTorch for CUDA takes some 8 GiB
FILES_MAX = 1 << 20
TARGETS_MAX = 16 << 20  # characters in the targets of all links of a part: each is followed step by step
# Whatever a part says of itself, no stretch of it unpacks to more: deflate reaches 1000:1, code some 4:1, logs 40:1.
RATIO_MAX = 100
ALWAYS = 64 << 20  # bytes that may exceed this
BLOCK = 4096  # bytes of disk that a file takes at least

#: What to do about an artifact that is refused.
NOT_OURS = (
    "Root unpacks releases, so nothing is taken that a build of this version would not write: build the release again "
    "from its source, and find out where this artifact came from."
)


class ArchiveError(Exception):
    """What a release must not hold, with the reason. `name` is the member's, empty where it is about the whole."""

    def __init__(self, text: str, name: str = "") -> None:
        super().__init__(text)
        self.name = name


@dataclass(frozen=True)
class Limits:
    """What a part may unpack to: bytes on disk in blocks of 4 KiB, and files and folders. `exact`: no less, either."""

    bytes: int = BYTES_MAX
    files: int = FILES_MAX
    exact: bool = False


@dataclass(frozen=True)
class TarMember:
    """A file, folder or link; `size` are a file's bytes, `target` is a link's."""

    name: str
    kind: str
    size: int = 0
    target: str = ""
    executable: bool = False


def show(name: str) -> str:
    """Return a name for a message: quoted, escaped where it is not plain text, and short."""
    start, end = 60, 30
    return repr(name if len(name) <= start + end else f"{name[:start]}…{name[-end:]}")


def refuse(name: str, why: str) -> NoReturn:
    """Raise ArchiveError."""
    raise ArchiveError(f"{show(name)} {why}", name)


def ceiling(size: int) -> Limits:
    """Return what `size` packed bytes may unpack to at most, whatever they say of themselves."""
    most = min(BYTES_MAX, ALWAYS + RATIO_MAX * size)
    return Limits(most, min(FILES_MAX, most // BLOCK))


def is_text(name: str) -> bool:
    """Whether a name is UTF-8; bytes that are none were read as single surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_path(name: str) -> None:
    """Refuse a relative name that leads elsewhere, or that not every host's file system takes. Raises ArchiveError."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts:
        refuse(name, "leads out of the release")
    if "" in parts or "." in parts or "\0" in name:
        refuse(name, "is no plain name: it has an empty component, a '.' or a NUL")
    if not is_text(name):
        refuse(name, "is no UTF-8")
    sizes = [len(part.encode()) for part in parts]
    if max(sizes) > NAME_MAX:
        refuse(name, f"has a component of {max(sizes)} bytes; {NAME_MAX} are allowed")
    if sum(sizes) + len(sizes) - 1 > PATH_MAX:
        refuse(name, f"has {sum(sizes) + len(sizes) - 1} bytes; {PATH_MAX} are allowed")
    if len(sizes) > DEPTH_MAX:
        refuse(name, f"lies {len(sizes) - 1} folders deep; {DEPTH_MAX - 1} are allowed")


class Rules:
    """Judges one part: each member as it comes, in any order, and the links at the end."""

    def __init__(self, part: str, limits: Limits) -> None:
        self.part, self.limits = part, limits
        self.bytes = 0  # on disk
        self._kinds: dict[str, str] = {}  # by name; "" for a folder that only the names below it imply
        self._links: dict[str, str] = {}
        self._targets = 0  # characters of all of them

    @property
    def files(self) -> int:
        """How many files, folders and links there are so far."""
        return len(self._kinds)

    def take(self, member: TarMember) -> None:
        """Judge the next member. Raises ArchiveError."""
        name, kind = member.name, member.kind
        check_path(name)
        top, below = name.partition("/")[::2]
        if top not in PARTS[self.part]:
            allowed = ", ".join(PARTS[self.part])
            refuse(name, f"is in the {self.part} part, at whose top may stand: {allowed}")
        if (top == MANIFEST and below) or (not below and kind != ("file" if top == MANIFEST else "folder")):
            refuse(name, f"is a {kind}, but {top} must be a {'file' if top == MANIFEST else 'folder'}")
        self._imply(name)
        if (known := self._kinds.get(name)) is not None and (known or kind != "folder"):
            refuse(name, "is there twice" if known else f"is a {kind}, and other members lie below it")
        self._kinds[name] = kind
        if kind == "link":
            self._links[name] = member.target
            self._targets += len(member.target)
            if self._targets > TARGETS_MAX:
                refuse(name, f"is a link, and the targets of all are longer than {TARGETS_MAX >> 20} MiB")
        if member.size > (MANIFEST_MAX if name == MANIFEST else FILE_MAX if kind == "file" else 0):
            refuse(name, f"is a {kind} of {member.size} bytes, which is too large")
        self.bytes += -(-member.size // BLOCK) * BLOCK
        if self.bytes > self.limits.bytes or self.files > self.limits.files:
            limit = "what its part says that it unpacks to" if self.limits.exact else "what its part may unpack to"
            refuse(name, f"goes beyond {limit}: {self.limits.bytes:,} bytes, {self.limits.files:,} files")

    def _imply(self, name: str) -> None:
        """Note the folders above a name, and refuse it where one of them is something else."""
        above = name.rpartition("/")[0]
        while above and above not in self._kinds:
            self._kinds[above] = ""
            above = above.rpartition("/")[0]
        if above and (known := self._kinds[above]) not in {"", "folder"}:
            refuse(name, f"lies below the {known} {show(above)}")

    def finish(self) -> None:
        """Judge the whole: the links, and whether it is what it says. Raises ArchiveError."""
        for name, target in self._links.items():
            self._check_link(name, target)
        if self.part == "code" and MANIFEST not in self._kinds:
            raise ArchiveError(f"it has no {MANIFEST}")
        if self.limits.exact and (self.bytes, self.files) != (self.limits.bytes, self.limits.files):
            raise ArchiveError(
                f"its {self.part} part unpacks to {self.bytes:,} bytes and {self.files:,} files, and says "
                f"{self.limits.bytes:,} and {self.limits.files:,}"
            )

    def _check_link(self, name: str, target: str) -> None:
        """Follow a link's text from its own folder: every name on the way must be no link, and inside of the part.

        What is not there may be named: the kernel fails on it, and only folders can come to be there later.
        """
        here, steps = name.split("/")[:-1], target.split("/")
        is_link = f"is a link to {show(target)}, which"
        if not target or "\0" in target or len(target.encode("utf-8", "replace")) > PATH_MAX or not is_text(target):
            refuse(name, f"{is_link} is empty, too long or no UTF-8")
        if target.startswith("/"):
            refuse(name, f"{is_link} leads out of the release")
        for left, step in zip(range(len(steps) - 1, -1, -1), steps, strict=True):
            if step == ".." and here:
                here.pop()
            elif step == "..":
                refuse(name, f"{is_link} leads out of the release")
            elif step not in {"", "."}:
                here.append(step)
            if here and here[0] not in PARTS[self.part]:
                refuse(name, f"{is_link} leads out of the {self.part} part")
            if left and self._kinds.get("/".join(here)) == "link":
                refuse(name, f"{is_link} leads through the link {show('/'.join(here))}")
        if not here:
            refuse(name, f"{is_link} is the release itself")
