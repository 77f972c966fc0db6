#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Unpack a release on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_unpack
short_description: Send a release to a host and unpack it there
version_added: "0.1.0"
description:
  - Sends the parts of a release that the host lacks (an action plugin of the same name does that), or lets the host
    fetch them from O(url). Checks their hashes and all that they hold, unpacks them to C(ROOT/releases/ID), compiles
    bytecode, and marks the release whole last.
  - Dependencies that a whole release on the host has already are shared by hard links, and not sent.
  - A release that is there is left alone. Half a release is built anew. Old releases are not removed.
options:
  app:
    description: The app's name.
    type: str
    required: true
  root:
    description: The app's folder on the host. V(/srv/APP) by default.
    type: path
  id:
    description: The release's id, from M(webfleet.fastapi.release_build).
    type: str
    required: true
  label:
    description: What people call the release. Kept in its marker.
    type: str
    default: ""
  origin:
    description:
      - Where the release comes from, as M(webfleet.fastapi.release_build) says. Kept likewise. A release that is there
        already gets a new O(label) where its C(commit) is known.
    type: dict
    default: {}
  artifact:
    description: The host's artifact, one of C(artifacts) of M(webfleet.fastapi.release_build).
    type: dict
    required: true
  have_lib:
    description:
      - Whether the host holds a whole release with the same C(lib_sha256). Saves a round trip where it is known.
        A wrong answer costs one; without an answer the host is asked.
    type: bool
  live:
    description:
      - Ids of releases that may be running. One with the id but other content is refused, not replaced, unless it is
        for another Python or architecture than the host has now.
    type: list
    elements: str
    default: []
  url:
    description:
      - Where the host fetches the parts itself, as C(APP/SHA256.tar.gz) below it, instead of being sent them. A login
        in it, as in C(https://USER:PASSWORD@HOST), is shown nowhere.
    type: str
    default: ""
  url_login:
    description: The login of O(url). Set by the action plugin.
    type: str
  python:
    description: The Python that will run the app, and compiles its bytecode.
    type: path
    default: /usr/bin/python3
  lib_file:
    description: Where the dependencies are on the host. Set by the action plugin.
    type: path
  code_file:
    description: Where the code is on the host. Set by the action plugin.
    type: path
  code_data:
    description: The code itself in base64, where it is small. Set by the action plugin.
    type: str
author: The fastapi-fleet developers (@webfleet)
"""

EXAMPLES = r"""
- name: Put the release on the host
  webfleet.fastapi.release_unpack:
    app: shop
    id: "{{ release.id }}"
    artifact: "{{ release.artifacts['3.12-x86_64'] }}"
  become: true
"""

RETURN = r"""
path:
  description: The release's folder.
  type: str
  returned: success
  sample: /srv/shop/releases/3f9a1c0b7d2e
needs:
  description: Which parts the host lacks, V(lib) and V(code). Empty when the release is there.
  type: list
  elements: str
  returned: success
seconds:
  description: How long the host took.
  type: float
  returned: success
"""

import base64
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.host.unpack import Order, UnpackError, is_renamed, needs, rename, unpack, valid_id


def main() -> None:
    """Read the parameters, unpack what was sent, report."""
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "root": {"type": "path"},
            "id": {"type": "str", "required": True},
            "label": {"type": "str", "default": ""},
            "origin": {"type": "dict", "default": {}},
            "artifact": {"type": "dict", "required": True},
            "have_lib": {"type": "bool"},
            "live": {"type": "list", "elements": "str", "default": []},
            "url": {"type": "str", "default": ""},
            "url_login": {"type": "str", "no_log": True},
            "python": {"type": "path", "default": "/usr/bin/python3"},
            "lib_file": {"type": "path"},
            "code_file": {"type": "path"},
            # No secret, but nothing for the host's journal or the task's result either.
            "code_data": {"type": "str", "no_log": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    began = time.monotonic()
    if not valid_id(params["id"]):
        module.fail_json(msg=f"{params['id']!r} is no release id; it is 12 or more hexadecimal digits.")
    order = Order(
        app=params["app"],
        root=Path(params["root"] or f"/srv/{params['app']}"),
        release=params["id"],
        artifact=params["artifact"],
        label=params["label"],
        origin=params["origin"],
        python=params["python"],
        live=tuple(params["live"]),
    )
    files = {part: Path(params[f"{part}_file"]) for part in ("lib", "code") if params[f"{part}_file"]}
    pulled = False
    try:
        if params["code_data"]:
            files["code"] = Path(module.tmpdir, "code.tar.gz")
            files["code"].write_bytes(base64.b64decode(params["code_data"]))
        lacking = needs(order)
        missing = [] if module.check_mode or not files else unpack(order, files)
        if params["url"] and lacking and not module.check_mode:
            # Not above: what it takes to speak HTTPS costs each host as much as all the rest.
            from ..module_utils.host.fetch import Server, pull  # noqa: PLC0415

            pulled = pull(order, Server(params["url"], params["url_login"] or ""))
        renamed = not lacking and is_renamed(order)
        if renamed and not module.check_mode:
            rename(order)
    except UnpackError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"The release could not be put into {order.root}: {error}. Does the play use become?")
    except KeyError as error:
        module.fail_json(msg=f"artifact lacks {error}; pass what release_build returned for this host's platform.")
    changed = renamed or (bool(lacking) and (module.check_mode or pulled or (bool(files) and not missing)))
    module.exit_json(
        changed=changed,
        path=str(order.folder),
        needs=missing if files else lacking,
        seconds=round(time.monotonic() - began, 3),
    )


if __name__ == "__main__":
    main()
