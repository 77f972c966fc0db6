"""What the actions app_probe and host_files share: templates as texts, and whether a text is one that was asked about.

On the controller only.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .core import refuse_old_core

refuse_old_core()  # which lacks the next import

from ansible.template import trust_as_template  # noqa: E402

#: Ansible loads an action in its main process before it forks a worker for each task and host, so all have this. Where
#: that is otherwise, `asked` differs, and a host is asked once more than needed.
_RUN = os.urandom(32)


def text_id(text: str) -> str:
    """Return by what a later task of this run knows a text again; the key is in no other run and in no file."""
    return hmac.new(_RUN, text.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()[:32]


def renderer(action: Any, variables: dict[str, Any]) -> Callable[[str, dict[str, str]], str]:
    """Return what works out a template of the task's role, with more variables than the host has.

    As `lookup('template', …)` does, which copies all variables of the host, in depth, each time.
    """

    def render(name: str, more: dict[str, str]) -> str:
        path = Path(action._find_needle("templates", name))
        text = trust_as_template(action._loader.get_text_file_contents(str(path)))
        beside = [str(path.parent)]  # what it includes
        templar = action._templar.copy_with_new_env(available_variables={**variables, **more}, searchpath=beside)
        return str(templar.template(text, escape_backslashes=False, overrides={"trim_blocks": True}))

    return render
