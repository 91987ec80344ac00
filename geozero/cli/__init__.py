"""The command line: `geozero`, or `python -m geozero.cli`."""

from geozero.cli.app import main

__all__ = ["main"]
