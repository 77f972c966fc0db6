#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Put a set of small files on a host, all in one round trip."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_files
short_description: Put a set of small files and links on a host
description:
  - What a row of C(template), C(copy) and C(file) tasks would do, in one task. A play's time is its number
    of tasks times its hosts, and a role's files change together.
  - Each file is replaced atomically. What somebody else made of it is kept beside it with O(record), else lost.
options:
  files:
    description: The files. Their content shows in diffs.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where the file goes; missing folders are made (0755, root).
        type: path
        required: true
      content:
        description: The text of the file.
        type: str
      source:
        description: >-
          Take the content from this file of the role's own C(files/) instead; of a folder, from each Python file in it.
          The action plugin of the same name does that.
        type: str
      template:
        description: >-
          Take the content from this file of the role's own C(templates/) instead, worked out like a task's own text.
          The action plugin does that, too.
        type: str
      fingerprint:
        description: >-
          Whether a template's content counts for the RV(fingerprint). The other templates find that as
          C(host_files_fingerprint).
        type: bool
        default: false
      secret:
        description: Whether the content must show nowhere, as with O(secrets).
        type: bool
        default: false
      link:
        description: Make the path a symbolic link to this instead.
        type: str
      state:
        description: V(directory) makes a folder, V(absent) removes a file, a link or an empty folder.
        type: str
        choices: [present, directory, absent]
        default: present
      owner:
        description: Owning user.
        type: str
        default: root
      group:
        description: Owning group.
        type: str
        default: root
      mode:
        description: Permission bits, as an octal string.
        type: str
  secrets:
    description: >-
      Files whose content must show nowhere, neither in a diff nor in the host's journal: the content for each path.
      Only root can read them (0600).
    type: dict
    default: {}
  key_file:
    description:
      - File on the host with the key for RV(digests), readable by root only; made where it is missing.
      - Needed with O(secrets).
    type: path
  record:
    description:
      - File on the host in which digests of what was written are kept, for root only. A file whose content is another
        one since was edited by somebody; it is told, and what it held is kept beside as C(FILE.edited-TIME), with its
        owner and mode. Of one file, three such copies stay.
    type: path
  sole_owner_of:
    description: >-
      Folder in which nothing else may be: files below it that C(app_probe) saw in this run and that O(files) does not
      name are removed. The action plugin does that.
    type: path
  salt:
    description: What else counts for the RV(fingerprint).
    type: str
    default: ""
  release:
    description: The release that the host is to serve with these files. The action plugin reads it.
    type: str
  force:
    description: Whether the host is to be told to switch to O(release) whatever went wrong before.
    type: bool
    default: false
  check:
    description: >-
      Command that must succeed with the new files in place, as a list of words, run where something changed. Where
      it fails, or a file cannot be made, everything is put back as it was.
    type: list
    elements: str
    default: []
  apply:
    description: Command that has the new files take effect, run after the check; the same where it fails.
    type: list
    elements: str
    default: []
author:
  - The fastapi-fleet developers (@webfleet)
attributes:
  check_mode:
    description: Says what would change, and changes nothing.
    support: full
  diff_mode:
    description: Shows the files' content, but for secrets.
    support: full
"""

EXAMPLES = r"""
- name: Install the units
  webfleet.fastapi.host_files:
    files:
      - path: /etc/systemd/system/counter@.service
        template: app@.service.j2
"""

RETURN = r"""
paths:
  description: The paths that were changed, or would be in check mode.
  returned: always
  type: list
  elements: str
edited:
  description: For each file that somebody had edited, where what it held is kept; check mode keeps none.
  returned: success
  type: dict
fingerprint:
  description: >-
    A hash of the contents that are marked so, and of O(salt); behind it, the digest of each secret that is marked. The
    action plugin makes it.
  returned: always
  type: str
needs_switch:
  description: >-
    With O(release), whether the host serves with another release or RV(fingerprint), by what it said to
    M(webfleet.fastapi.app_probe) in this run. The action plugin compares.
  returned: with O(release)
  type: bool
refusal:
  description: >-
    Why the host would refuse to switch, by what M(webfleet.fastapi.app_probe) found to be marked bad there; empty where
    nothing is known of that.
  returned: in check mode, with O(release) and without O(force), where a switch is needed
  type: str
digests:
  description: >-
    Of the content of each secret, with the key in O(key_file), which stays on the host; empty where there is no key, in
    check mode.
  returned: success
  type: dict
"""

import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.host.digests import keyed, make_key, read_key
from ..module_utils.host.file_set import copies_of_edited, difference, put_checked, secret_file
from ..module_utils.host.file_state import file_state, matches
from ..module_utils.host.written import read_written, remove_old_copies, updated, written_text

FILE_SPEC: dict[str, Any] = {
    "path": {"type": "path", "required": True},
    "content": {"type": "str"},
    "source": {"type": "str"},
    "link": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "directory", "absent"], "default": "present"},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "mode": {"type": "str"},
}


def main() -> None:
    """Run the module."""
    command: dict[str, Any] = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "list", "elements": "dict", "default": [], "options": FILE_SPEC},
            # As a whole, not by its parts: only so it stays out of what the module logs on the host.
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "key_file": {"type": "path"},
            "record": {"type": "path"},
            "check": command,
            "apply": command,
        },
        supports_check_mode=True,
    )
    secrets = module.params["secrets"]
    shown, hidden = module.params["files"], [secret_file(*pair) for pair in secrets.items()]
    if secrets and not module.params["key_file"]:
        module.fail_json(msg="secrets need key_file")
    key_file = Path(module.params["key_file"]) if secrets else None
    try:
        key = read_key(key_file) if key_file else None
        new_key = key_file if key is None else None
        open_changes = [item for item in shown if not matches(item, file_state(Path(item["path"])))]
        secret_changes = [item for item in hidden if not matches(item, file_state(Path(item["path"])))]
        diff = [difference(item) for item in open_changes]
        record = Path(module.params["record"]) if module.params["record"] else None
        written = read_written(record) if record else {}
        # Secrets first: what reads them finds them once the rest is there.
        changes = secret_changes + open_changes
        copies = copies_of_edited(changes, written, key, time.strftime("%Y%m%dT%H%M%S"))
        if new_key and not module.check_mode:
            key = make_key(new_key)
        commands = [module.params[name] for name in ("check", "apply") if module.params[name]]
        notes = []
        if record and (digests := updated(updated(written, shown), hidden if key else [], key)) != written:
            notes = [secret_file(str(record), written_text(digests))]
        refused = ""
        if not module.check_mode:
            refused = put_checked([*copies.values(), *changes, *notes], *(commands if changes else []))
            for path in copies:
                remove_old_copies(Path(path))
    except (OSError, KeyError, ValueError) as error:
        module.fail_json(msg=f"cannot put the files in place: {error}")
    if refused:
        module.fail_json(msg=f"The old files are back in place, as the new ones are refused by {refused}", diff=diff)
    paths = [item["path"] for item in open_changes + secret_changes] + ([str(new_key)] if new_key else [])
    digests = {path: keyed(key, text.encode("utf-8", "surrogateescape")) for path, text in secrets.items() if key}
    kept = {path: copy["path"] for path, copy in copies.items()}
    for path, copy in kept.items():
        is_kept = "would be kept" if module.check_mode else "is kept"
        module.warn(f"{path} was edited since the last deploy wrote it. What it held {is_kept} in {copy}")
    module.exit_json(changed=bool(paths), paths=paths, diff=diff, digests=digests, edited=kept)


if __name__ == "__main__":
    main()
