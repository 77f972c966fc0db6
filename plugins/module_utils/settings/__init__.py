"""What a user may set: the definitions of settings, the rules for their values, and names that are meant otherwise."""
