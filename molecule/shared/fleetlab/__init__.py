"""The lab: systemd hosts as containers, reached over SSH like any other host."""
