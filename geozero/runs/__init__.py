"""Runs looked at from outside: found by a name, compared, the best of them registered."""
