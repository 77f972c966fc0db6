#!/usr/bin/env python3
"""Start and remove labs of systemd hosts: `lab.py up | down | status | clean` (`--help` says more)."""

import sys

from fleetlab.cli import main

if __name__ == "__main__":
    sys.exit(main())
