"""The operating system releases that a lab's hosts may have, and where their images come from. Pure, no effects."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Release:
    """One operating system release and the ways to get it."""

    key: str
    title: str
    suite: str
    stand_in: str = ""

    @property
    def family(self) -> str:
        """`ubuntu` or `debian`."""
        return self.key.partition("-")[0]

    @property
    def pulled(self) -> str:
        """The image's name in a container registry."""
        return self.key.replace("-", ":", 1)


# Stand-ins by systemd and Python: bookworm has 252 / 3.11, noble 255 / 3.12, trixie 257 / 3.13.
RELEASES = {
    release.key: release
    for release in (
        Release("ubuntu-22.04", "Ubuntu 22.04", "jammy", "debian-12"),
        Release("ubuntu-24.04", "Ubuntu 24.04", "noble", "debian-12"),
        Release("ubuntu-26.04", "Ubuntu 26.04", "resolute", "debian-13"),
        Release("debian-12", "Debian 12", "bookworm"),
        Release("debian-13", "Debian 13", "trixie"),
    )
}


@dataclass(frozen=True)
class Sources:
    """Where images can come from at this moment."""

    registry: bool
    ubuntu_archive: bool


@dataclass(frozen=True)
class Choice:
    """What is taken for a release that was asked for: `via` is registry or archive."""

    asked: Release
    taken: Release
    via: str

    @property
    def title(self) -> str:
        """The system that really runs, as the inventory's `lab_os` says it."""
        if self.asked == self.taken:
            return self.taken.title
        return f"{self.taken.title} (standing in for {self.asked.key})"

    @property
    def remark(self) -> str:
        """One line for the user when it is not the plain registry image, else an empty string."""
        if self.via == "registry":
            return ""
        if self.asked == self.taken:
            return f"no container registry answers: building {self.taken.title} from its package archive"
        return (
            f"no container registry answers, nor Ubuntu's package archive: building {self.taken.title} "
            f"instead of {self.asked.key}"
        )


def choose(asked: Release, sources: Sources) -> Choice:
    """Take the release itself where it can be had, else the Debian release nearest to it."""
    if sources.registry:
        return Choice(asked, asked, "registry")
    if asked.family == "debian" or sources.ubuntu_archive:
        return Choice(asked, asked, "archive")
    return Choice(asked, RELEASES[asked.stand_in], "archive")
