"""The command line. Its entry loads nothing, so that a Python without our dependencies can say so (`__main__`)."""


def main() -> None:
    """Run the command line: 0 done, 2 wrong use or bad input (one line), 1 our fault (traceback)."""
    from geozero.cli.app import main as run

    run()
