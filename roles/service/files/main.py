"""Entry point of `<app>-release`: the folder is run as `python3 FOLDER`."""

import sys

from fleet.host.cli import main

sys.exit(main())
