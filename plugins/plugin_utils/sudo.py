"""Whether what Ansible or a host's sudo printed means that sudo did not make Ansible root."""

from __future__ import annotations

import re

#: What Ansible says of it, what sudo does, and what sudo-rs does, which Ubuntu 26.04 has in its place. The word `sudo`
#: alone says nothing: hosts, users and keys are called so, and sudo warns of a host's name that it cannot resolve.
_REFUSALS = re.compile(
    r"waiting for (?:privilege escalation|become success)"
    r"|(?:Missing|Incorrect) sudo password"
    r"|Sorry, (?:try again\.|a password is required to run sudo)"
    r"|Sorry, user \S+ (?:is not allowed to (?:execute|authenticate)|may not run) "
    r"|\S+ is not in the sudoers file"
    r"|\bsudo(?:-rs|\.ws)?: (?:"
    r"a password is required"
    r"|a terminal is required to (?:read the password|authenticate)"
    r"|(?:interactive authentication|interaction) is required"
    r"|no password was provided|no tty present|sorry, you must have a tty"
    r"|authentication (?:failed|required but not attempted)|incorrect authentication attempt"
    r"|(?:maximum )?\d+ incorrect (?:password|authentication) attempts?"
    r"|I'm sorry \S+ I'm afraid I can't do that"
    r"|account validation failure|account or password is expired|password expired"
    r")",
    re.IGNORECASE,
)
_REMEDY = (
    "Allow it without a password, or give the right one (--ask-become-pass); where sudo is sudo-rs, as on Ubuntu "
    "26.04, that needs ansible_become_exe=sudo.ws"
)


def refusal(message: str) -> str:
    """Say that sudo refused, with its words and what to do, where a message means that; "" where it does not."""
    # The last such line: Ansible's own comes first, and sudo's says more.
    line = next((line.strip() for line in reversed(message.splitlines()) if _REFUSALS.search(line)), "")
    return line and f"sudo did not make Ansible root: {line.removeprefix('Task failed: ')}. {_REMEDY}"
