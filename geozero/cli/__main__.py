"""`python -m geozero.cli`."""

from geozero.cli import main

if __name__ == "__main__":
    main()
