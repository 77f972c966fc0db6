"""How many workers a host, a container or this machine should run, and how they start."""
