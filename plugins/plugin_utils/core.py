"""The versions of ansible-core that this collection runs with. On the controller only."""

from __future__ import annotations

import re

from ansible.errors import AnsibleOptionsError
from ansible.release import __version__

#: meta/runtime.yml says the same. Ansible only warns about it, and does not read it for a clone that is no collection.
OLDEST = (2, 19)


def refuse_old_core(version: str = __version__) -> None:
    """Raise AnsibleOptionsError where ansible-core is too old; a newer one than was tried is taken."""
    running = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if running < OLDEST:
        series = ".".join(map(str, running))
        raise AnsibleOptionsError(
            f"ansible-core {series} is too old; webfleet.fastapi needs {OLDEST[0]}.{OLDEST[1]} or newer. "
            "Nothing was changed on any host."
        )
