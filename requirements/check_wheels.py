"""Check that pip can get every pin of a lock or an extra for each supported Python, and name those that have no wheel.

    python requirements/check_wheels.py [LOCK …] [--python 3.13]     (default: all of them, all versions)

3.11 means 3.11.0: what needs a later patch release is not served. Nothing is resolved or installed, but pip downloads
what it finds (several GB for gpu.lock). The metadata of source packages is built with the Python that runs this. Exit
code 1 if a pin is not served.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from make_env import IMPATIENT, PYTHONS, TORCH_CPU_INDEX, explain

HERE = Path(__file__).resolve().parent
MISSING = re.compile(r"(?:No matching distribution found for|The user requested) (\S+==\S+)")


def ask(pins: list[str], python: str, *options: str) -> tuple[list[str], str]:
    """Let pip look for pins without installing them.

    Returns:
        The file names that it would install, and its output where it failed ("" where it did not).
    """
    with tempfile.TemporaryDirectory() as scratch:
        lock, report = Path(scratch, "pins.txt"), Path(scratch, "report.json")
        lock.write_text("\n".join(pins))
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--ignore-installed", *options]
        command += ["--python-version", python, "--target", scratch, "--report", str(report), "-r", str(lock)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            return [], done.stdout
        found = json.loads(report.read_text())["install"]
        return [one["download_info"]["url"].rsplit("/", 1)[1] for one in found], ""


def torch(pin: str, python: str) -> list[str]:
    """The file that make_env.py would install for torch, from the same sources in the same order; [] if none has it."""
    found, output = ask([pin], python)
    if output and pin.endswith("+cpu"):
        found, output = ask([pin], python, "--extra-index-url", TORCH_CPU_INDEX, *IMPATIENT)
        if output:
            print(
                f"  no {pin} for Python {python} in reach: `make env` takes the CUDA build of the release", flush=True
            )
            found, output = ask([pin.removesuffix("+cpu")], python)
    return found


def check(lock: Path, python: str) -> tuple[list[str], list[str]]:
    """File names that pip finds for a lock's pins on one Python, and the pins that it does not find.

    Raises:
        RuntimeError: pip failed for another reason than a pin that is not served.
    """
    pins = [line for line in lock.read_text().splitlines() if "==" in line and not line.startswith("#")]
    left = [pin for pin in pins if not pin.startswith("torch==")]
    files: list[str] = []
    missing: list[str] = []
    for pin in set(pins) - set(left):
        files += torch(pin.replace("==", "==="), python)
        if not files:
            missing.append(pin)
    while left:
        found, output = ask(left, python)
        if not output:
            return files + found, missing
        lacks = MISSING.search(output)
        if lacks is None or lacks.group(1) not in left:
            raise RuntimeError(f"pip failed: {explain(output)}\n{output[-2000:]}")
        left.remove(lacks.group(1))
        missing.append(lacks.group(1))
    return files, missing


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "locks", nargs="*", type=Path, default=sorted([*HERE.glob("*.lock"), *HERE.glob("*.txt")]), metavar="LOCK"
    )
    parser.add_argument("--python", action="append", choices=PYTHONS, help="only this version (repeatable)")
    options = parser.parse_args()
    complete = True
    for lock in options.locks:
        for python in options.python or PYTHONS:
            files, missing = check(lock, python)
            sources = [file for file in files if not file.endswith(".whl")]
            line = f"{lock.name}, Python {python}: {len(files) - len(sources)} wheels, {len(sources)} source packages"
            print(line + (f" ({', '.join(sorted(sources))})" if sources else ""), flush=True)
            for pin in missing:
                print(f"  not served for Python {python}: {pin}", flush=True)
            complete = complete and not missing
    return 0 if complete else 1


if __name__ == "__main__":
    raise SystemExit(main())
