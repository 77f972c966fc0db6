"""What runs on the host: one app's slots, their workers, and the switch between them.

Standard library only, Python 3.10 or newer. Each app has a copy of its own, so that one app's
upgrade is never another app's risk.
"""
