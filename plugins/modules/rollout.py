#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Decide how a rollout goes on: the documentation of the action plugin of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout
short_description: Decide how a rollout goes on, from what each host has said so far
version_added: "0.2.0"
description:
  - The playbooks call it after each stage, for one host only; it reads what the hosts' tasks have registered and asks
    no host. Hosts that fail stay in the play, as Ansible leaves out the rest of a run, the way back included, once
    all hosts of a batch have failed.
  - The first call of a playbook has O(hosts), O(alive) and O(settings); later ones have none of them and read the
    fact RV(ansible_facts.rollout) of C(localhost). So it runs with C(delegate_to) C(localhost) and
    C(delegate_facts).
options:
  hosts:
    description: All hosts of the run, by their names in the inventory.
    type: list
    elements: str
  alive:
    description: Those of O(hosts) that Ansible has not lost. Needed with O(hosts).
    type: list
    elements: str
  settings:
    description:
      - C(batches), sizes as C(serial) takes them; C(max_failures), how many hosts may fail; C(restore), whether hosts
        that switched go back when the rollout stops; C(migrate), whether there is a migration.
    type: dict
    default: {}
  back_to:
    description:
      - The release that the hosts are to go back to; empty for the good one before. Without it, hosts go to the
        release that was built.
    type: str
author:
  - The fastapi-fleet developers (@webfleet)
"""

EXAMPLES = r"""
- name: Decide which hosts switch
  webfleet.fastapi.rollout:
    hosts: "{{ ansible_play_hosts_all }}"
    alive: "{{ ansible_play_hosts }}"
    settings: {batches: [1, "100%"], max_failures: 0, restore: true}
  run_once: true
  delegate_to: localhost
  delegate_facts: true
"""

RETURN = r"""
ansible_facts:
  description: Facts to add.
  type: dict
  returned: success
  contains:
    rollout:
      description:
        - The state of the rollout. C(release) is what the hosts are to run; C(migrate), C(switch), C(lost) and
          C(restore) name the hosts for the next stage, C(batches) how many of them at a time; C(failed) says for each
          failed host why, C(stop) why the rollout goes no further; C(rows) has for each host what it ran, what it
          runs now and what happened, C(notes) what else there is to know.
      type: dict
      returned: success
"""
