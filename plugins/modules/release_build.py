#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Build a release of a FastAPI app on the controller: the documentation of the action plugin of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_build
short_description: Build a release of a FastAPI app, once for each platform
version_added: "0.1.0"
description:
  - Takes an app's source and writes one reproducible C(.tar.gz) per platform with the code, its locked dependencies
    and a manifest. The same input gives the same id and the same bytes.
  - Runs on the controller, by an action plugin, and needs uv there. It writes into a cache, touches no host, and does
    the same in check mode; only O(publish) changes something.
options:
  app:
    description: The app's name.
    type: str
    required: true
  source:
    description:
      - A folder with C(uv.lock), C(pyproject.toml) or C(requirements.txt); C(git+URL@REF), with C(#subdirectory=DIR);
        a wheel, with extras as in C(shop.whl[s3]); an artifact built before, or a folder with those of several
        platforms.
    type: str
    required: true
  module:
    description: Where the app object is, as in C(main:app).
    type: str
    required: true
  platforms:
    description: The platforms to build for, each pair once.
    type: list
    elements: dict
    required: true
    suboptions:
      python:
        description: The hosts' Python, major and minor.
        type: str
        required: true
      arch:
        description: The hosts' architecture.
        type: str
        required: true
        choices: [x86_64, aarch64]
      hosts:
        description: Names of the hosts, for messages.
        type: list
        elements: str
        default: []
      versions:
        description:
          - The hosts' full Python versions, as in V(3.12.3), which the app's C(requires-python) is compared with.
            Without them, O(platforms[].python) meets it where some patch release of it from X.Y.1 on does.
        type: list
        elements: str
        default: []
  engine:
    description: What will serve the app. Decides which packages are added to the app's own.
    type: str
    choices: [gunicorn, asgi, uvicorn]
    default: gunicorn
  engines:
    description:
      - All engines that hosts run the release with, where these are several. Each may need newer versions of what
        O(engine) brings.
    type: list
    elements: str
    choices: [gunicorn, asgi, uvicorn]
    default: []
  engine_files:
    description:
      - Folder with C(engine.in) (what the engines need), C(engine-ENGINE.in) (what one of them needs more) and
        C(engine.txt) (locked, with hashes).
    type: path
    required: true
  exclude:
    description: Patterns of files that do not ship, matched to whole relative names and to each part of them.
    type: list
    elements: str
    default: []
  include:
    description:
      - Paths in the source's folder that ship although git ignores them. They may be patterns, and name folders. What
        may hold secrets by its name ships only where it is named exactly.
    type: list
    elements: str
    default: []
  lock:
    description:
      - A requirements file with hashes, for a source that brings no lock of its own, such as a wheel. Nothing but what
        is in it gets installed, besides what O(engine) needs. As C(uv pip compile --universal --generate-hashes) or
        C(uv export) writes it, or a C(pylock.toml).
    type: str
    default: ""
  sdists:
    description:
      - Whether hosts may build source distributions. Then C(needs_sdists) says which they have to build, and there are
        no C(artifacts) until M(webfleet.fastapi.release_sdist) has done so and O(wheels) has its results.
    type: bool
    default: false
  wheels:
    description: What M(webfleet.fastapi.release_sdist) returned, of all hosts.
    type: list
    elements: dict
    default: []
  pull:
    description: Whether hosts fetch the artifacts' parts themselves. Then V(notes) say what must be there for them.
    type: bool
    default: false
  publish:
    description: A folder into which the parts are put for that, as C(APP/SHA256.tar.gz). Not in check mode.
    type: str
    default: ""
  by:
    description: Who builds it. By default who began the CI's run, with its number, else user@host.
    type: str
    default: ""
extends_documentation_fragment: webfleet.fastapi.build
author: The fastapi-fleet developers (@webfleet)
"""

EXAMPLES = r"""
- name: Build the release
  webfleet.fastapi.release_build:
    app: shop
    source: /home/me/shop
    module: main:app
    engine_files: roles/release/files
    platforms:
      - {python: "3.12", arch: x86_64, hosts: [web1, web2]}
  run_once: true
  register: release
"""

RETURN = r"""
id:
  description: The release's id, the same for all platforms; made of all that goes into it.
  type: str
  returned: success
  sample: 3f9a1c0b7d2e
label:
  description: >-
    What people call it: the tag or branch and the commit, with C(+changes) where files differ from that; else the
    version, else the id.
  type: str
  returned: success
  sample: v1.4.2 (3f2a91c)
origin:
  description: >-
    Where it comes from: C(commit), C(name) (its tag or branch), C(changes) (how many files differ); and C(by), who
    built it. Only C(by) where there is no git. Of an artifact that was built before, what the file beside it says,
    C(ARTIFACT.origin.json); nothing where that is not there.
  type: dict
  returned: success
artifacts:
  description:
    - For each platform what there is to ship. C(path), C(sha256) and C(size) are the whole artifact's;
      those with C(lib_) and C(code_) its two parts'. C(lib_bytes) and C(code_bytes) are sizes on the host's disk,
      C(lib_files) and C(code_files) numbers of files and folders.
  type: dict
  returned: success
  sample:
    3.12-x86_64: {path: /c/shop.tar.gz, lib_path: /c/lib.tar.gz, code_path: /c/code.tar.gz, size: 11000000}
needs_sdists:
  description: What hosts have to build before there are artifacts; C(host) says which one.
  type: list
  elements: dict
  returned: success
notes:
  description: What the person who deploys should know, as sentences.
  type: list
  elements: str
  returned: success
built:
  description: Whether something was built; false when all was in the cache.
  type: bool
  returned: success
published:
  description: Names of the parts that O(publish) lacked.
  type: list
  elements: str
  returned: success
seconds:
  description: How long it took.
  type: float
  returned: success
"""
