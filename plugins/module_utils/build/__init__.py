"""A release's build, on the controller: source, lock, wheels, artifact."""
