"""Entry point of `<app>-release`: the folder is run as `python3 FOLDER`."""

import sys

from fleet_host.cli import main

sys.exit(main())
