"""What Python's `site` does when it starts, for a release's own packages.

Servers run with -S, so that nothing which the distribution has installed is imported. That leaves out, too, the .pth
files of the release's packages (setuptools before 81 gives `distutils` by one) and names that scripts expect, such as
`exit`. Imported by whatever loads the app, before it does.
"""

from __future__ import annotations

import os
import site
import sys

#: Folders of a release that packages are installed into: its dependencies, the app's own wheel.
_PACKAGES = {"lib", "site"}

if sys.flags.no_site:
    site.setquit()
    site.setcopyright()
    site.sethelper()
    for _folder in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        if os.path.basename(_folder) in _PACKAGES:
            site.addsitedir(_folder)
