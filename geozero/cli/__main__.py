"""`python3 -m geozero.cli`: the code of the directory that it is started in, as the data stages want it.

A Python that lacks our dependencies hands over to one that has them, so that `.venv/bin/dvc repro` works where `.venv`
is not activated, in a temporary copy that DVC makes for an experiment, too.
"""

import os
import sys
from pathlib import Path


def _pythons() -> list[Path]:
    """That of the DVC that runs this stage, then those of the checkout and of the one that it is a copy of."""
    found = [Path(__file__).resolve().parents[2] / ".venv/bin/python"]
    if "DVC_STAGE" in os.environ:
        parent = Path(f"/proc/{os.getppid()}/cmdline").read_bytes().split(b"\0")[0].decode()
        found = [Path(parent), *found, Path(os.environ.get("DVC_ROOT", "")) / ".venv/bin/python"]
    return [path for path in found if path.name.startswith("python") and path.is_file()]


if __name__ == "__main__":
    try:
        from geozero.cli.app import main
    except ModuleNotFoundError as error:
        if (error.name or "geozero").partition(".")[0] == "geozero":
            raise
        tried = os.environ.get("GEOZERO_PYTHONS_TRIED", "").split(os.pathsep)
        python = next((str(path) for path in _pythons() if str(path) not in tried), None)
        if python is None:
            hint = "`make env` makes .venv, `source .venv/bin/activate` activates it"
            print(f"geozero: no package '{error.name}' in {sys.executable} ({hint})", file=sys.stderr)
            sys.exit(2)
        os.environ["GEOZERO_PYTHONS_TRIED"] = os.pathsep.join([*tried, python])
        os.execv(python, [python, "-m", "geozero.cli", *sys.argv[1:]])
    main()
