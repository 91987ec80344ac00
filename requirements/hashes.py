"""The sha256 of every file that a pin may be installed from, in `sha256sums`. The standard library is enough.

python requirements/hashes.py install FILE [PIP-OPTION …]   install a file's pins into this environment, each checked
python requirements/hashes.py refresh                       write `sha256sums` anew, as the package index states them;
                                                            needs `uv` on the PATH, downloads no package
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from make_env import SUMS, Failed, key_of, pins_of, with_hashes

HERE = Path(__file__).resolve().parent
# What the locks are for: Linux on x86_64, CPython 3.11 to 3.13; source packages fit anywhere
FITS = re.compile(
    r"(-(py2\.py3|py3|py31[123]|cp3\d+(\.cp3\d+)*-abi3|cp31[123]-cp31[123])-?"
    r".*(any|linux_x86_64|manylinux\w*_x86_64(\.\w+)*)\.whl|\.tar\.gz|\.zip|\.tar\.bz2)$"
)
ABI3 = re.compile(r"-(cp3(?:[2-9]|1[0-3])|py3)(\.\w+)*-(abi3|none)-")
ELSEWHERE = re.compile(r"^torch==\S+\+cpu$")  # served by PyTorch's own index, which states the hash that pip checks


def install(file: Path, options: list[str]) -> int:
    try:
        lines = with_hashes(pins_of(file.read_text()), HERE)
    except Failed as error:
        print(error, file=sys.stderr)
        return 1
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as scratch:
        scratch.write("\n".join(lines) + "\n")
        scratch.flush()
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", *options]
        return subprocess.run([*pip, "-r", scratch.name], check=False).returncode


def refresh() -> int:
    """Ask the index for the hashes of all pins of all locks and extras."""
    import tomllib

    pins = {pin for file in sorted([*HERE.glob("*.lock"), *HERE.glob("*.txt")]) for pin in pins_of(file.read_text())}
    lines: set[str] = set()
    missing: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        for part in _without_conflicts(pin for pin in pins if not ELSEWHERE.match(pin)):
            given, made = Path(scratch, "pins.in"), Path(scratch, "pylock.toml")
            given.write_text("\n".join(part) + "\n")
            command = ["uv", "pip", "compile", "--quiet", "--no-deps", "--universal", "--python-version", "3.11"]
            subprocess.run([*command, "--format", "pylock.toml", "-o", str(made), str(given)], check=True)
            for package in tomllib.loads(made.read_text())["packages"]:
                files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
                named = [(file["hashes"]["sha256"], file["url"].rsplit("/", 1)[1]) for file in files]
                fitting = [f"{value}  {name}" for value, name in named if FITS.search(name) and _python_fits(name)]
                missing += [] if fitting else [package["name"]]
                lines.update(fitting)
            made.unlink()
    head = "# of every file that a pin may be installed from, by `python requirements/hashes.py refresh`"
    (HERE / SUMS).write_text("\n".join([head, *sorted(lines, key=lambda line: line.split()[1].lower())]) + "\n")
    print(f"{len(lines)} files of {len(pins)} pins" + (f"; none for {', '.join(missing)}" if missing else ""))
    return 1 if missing else 0


def _python_fits(name: str) -> bool:
    return not name.endswith(".whl") or "-cp" not in name or "-abi3-" not in name or bool(ABI3.search(name))


def _without_conflicts(pins: Iterable[str]) -> list[list[str]]:
    """Lists of pins in which no package stands twice: the locks differ in a few versions."""
    lists: list[dict[str, str]] = []
    for pin in sorted(pins):
        name = key_of(*pin.split("==")).partition("==")[0]
        place = next((one for one in lists if name not in one), None)
        if place is None:
            lists.append(place := {})
        place[name] = pin
    return [list(one.values()) for one in lists]


def main(words: list[str]) -> int:
    if words[:1] == ["refresh"]:
        return refresh()
    if words[:1] == ["install"] and len(words) > 1:
        return install(Path(words[1]), words[2:])
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
