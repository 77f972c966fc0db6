"""What runs on hosts, in modules and as the command APP-release: slots, workers, the switch, unpacking.

Standard library only, Python 3.10 or newer. Each app has a copy of its own on a host, so that one app's upgrade is
never another app's risk.
"""
