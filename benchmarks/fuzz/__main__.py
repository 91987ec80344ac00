"""Give every reader of foreign data hostile input, and list what escapes:

    python -m benchmarks.fuzz --inputs 100000 --seed 1

An input is a small set of files, made from sound ones by the random numbers of (seed, number), so that any run of the
same version makes it again: `--only NUMBER` reads one. It passes where the reader returns or refuses it (`InputError`
in one line, or a bad record), within `--seconds` of processor time and `--memory` GB, and touches nothing outside its
own directory. A crash of the process (a segmentation fault, memory, an endless loop in C) costs that input only.

Inputs that fail are written to `--out` as READER/NUMBER; once fixed, small ones go to `tests/fixtures/fuzz`, which a
quick test reads again.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

from benchmarks.fuzz.guard import ROOT, Guard, TooSlow, scratch
from benchmarks.fuzz.mutations import LINK, Files, mutated
from benchmarks.fuzz.readers import Reader, all_readers, files_of
from geozero.common.errors import refusal

STALL_SECONDS = 180.0  # wall time without the next input, after which the process is ended
REPORT_SECONDS = 60.0


def write_files(files: Files, place: Path) -> None:
    """Write an input; names that the system refuses are left out."""
    place.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        try:
            path = place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if data.startswith(LINK):
                path.symlink_to(data[len(LINK) :].decode())
            else:
                path.write_bytes(data)
        except (OSError, ValueError):
            continue


def input_of(readers: list[Reader], seed: int, number: int) -> tuple[Reader, Files]:
    """The reader and the files of one number."""
    rng = random.Random(f"{seed}/{number}")
    (reader,) = rng.choices(readers, [reader.weight for reader in readers])
    files = mutated(rng, rng.choice(reader.seeds), reader.seeds)
    return reader, files if reader.links else {n: data for n, data in files.items() if not data.startswith(LINK)}


def verdict(reader: Reader, files: Files, guard: Guard, place: Path, seconds: float) -> str:
    """ "" where the input was read or refused as it should be, else what escaped."""
    case, out = place / "case", place / "case-out"
    write_files(files, case / "input")
    write_files({}, case / "out")
    os.chdir(case)
    found = ""
    try:
        with guard.watch(case, seconds) as seen, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                reader.read(case / "input", case / "out")
            except reader.refusals as refused:
                if "\n" in str(refused):
                    found = f"more than one line: {str(refused)[:200]!r}"
            except OSError as error:  # the command line says it in one line
                if refusal(error) is None:
                    raise
        found = found or "; ".join(dict.fromkeys(one for one in seen if not (reader.anywhere and one[:5] == "reads")))
    except TooSlow:
        found = f"took more than {seconds:g} s"
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "/geozero/" in f.filename]
        at = f"{frames[-1].filename.partition('/geozero/')[2]}:{frames[-1].lineno}" if frames else "?"
        found = f"{type(error).__name__} at {at}: {' '.join(str(error).split())[:160]}"
    finally:
        os.chdir(place)
        shutil.rmtree(case, ignore_errors=True)
        shutil.rmtree(out, ignore_errors=True)
    return found


def work(options: argparse.Namespace, start: int, stop: int) -> None:
    """In a process of its own: inputs `start` to `stop`, one line of JSON for each that fails."""
    os.sched_setaffinity(
        0, sorted(os.sched_getaffinity(0))[:1]
    )  # one process; ingest starts as many as there are cores
    readers = chosen(options.readers)
    guard, place = Guard(), scratch()
    tempfile.tempdir = str(place / "case")  # where archives within archives are unpacked
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    for reader in readers:  # what is imported when it is first needed is not the input's doing
        for files in reader.seeds[:4]:
            verdict(reader, files, guard, place, 60)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = used + int(options.memory * 1e9)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    spent: dict[str, list[float]] = collections.defaultdict(list)
    progress = os.open(options.progress, os.O_WRONLY | os.O_CREAT)
    try:
        for number in range(start, stop):
            os.pwrite(progress, b"%020d" % number, 0)
            reader, files = input_of(readers, options.seed, number)
            began = time.process_time()
            found = verdict(reader, files, guard, place, options.seconds)
            spent[reader.name].append(time.process_time() - began)
            if found:
                print(json.dumps({"number": number, "found": found}))
        os.pwrite(progress, b"%020d" % stop, 0)
        print(json.dumps({"spent": {name: [len(times), sum(times), max(times)] for name, times in spent.items()}}))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def chosen(names: list[str] | None) -> list[Reader]:
    readers = all_readers()
    return [r for r in readers if not names or any(r.name.startswith(name) for name in names)]


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Everything, in one process at a time that is started again where it crashed."""
    failures: list[dict[str, Any]] = []
    at, began, reported = options.start, time.monotonic(), time.monotonic()
    end = options.start + options.inputs
    options.progress = str(Path(options.out).absolute() / "progress")
    Path(options.out).mkdir(parents=True, exist_ok=True)
    while at < end:
        Path(options.progress).write_text("")
        words = [sys.executable, "-m", "benchmarks.fuzz", "--work", f"{at}:{end}", "--progress", options.progress]
        words += [f"--{name}={getattr(options, name)}" for name in ("seed", "seconds", "memory")]
        words += [f"--readers={name}" for name in options.readers or ()]
        log = Path(options.out) / "log.jsonl"
        with log.open("wb") as sink:
            child = subprocess.Popen(words, cwd=ROOT, stdout=sink, stderr=subprocess.DEVNULL, start_new_session=True)
            last, since = -1, time.monotonic()
            while child.poll() is None:
                time.sleep(0.2)
                now = int(Path(options.progress).read_text().strip("\0") or at)
                if now != last:
                    last, since = now, time.monotonic()
                elif time.monotonic() - since > STALL_SECONDS:
                    child.kill()
                if time.monotonic() - reported > REPORT_SECONDS:
                    reported = time.monotonic()
                    print(
                        f"{now - options.start} of {options.inputs} inputs, {reported - began:.0f} s",
                        file=sys.stderr,
                        flush=True,
                    )
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        failures += [line for line in lines if "found" in line]
        for name, (n, seconds, most) in next((line["spent"] for line in lines if "spent" in line), {}).items():
            print(f"{name}\t{n} inputs\t{1000 * seconds / n:.1f} ms each, at most {1000 * most:.0f}")
        at = int(Path(options.progress).read_text().strip("\0") or at)
        if child.returncode and at < end:
            failures.append({"number": at, "found": f"the process ended with {child.returncode}"})
            at += 1
        elif child.returncode == 0:
            at = end
    return failures


def again(place: Path, readers: list[Reader], seconds: float) -> int:
    """Read stored inputs once more; 1 if one of them fails."""
    guard, room = Guard(), scratch()
    inputs = [(r, one) for r in readers for one in sorted((place.absolute() / r.name).glob("*"))]
    tempfile.tempdir = str(room / "case")
    found = {str(one): verdict(reader, files_of(one), guard, room, seconds) for reader, one in inputs}
    shutil.rmtree(room)
    for name, what in found.items():
        if what:
            print(f"{name}\t{what}")
    print(f"{len(inputs)} inputs read again")
    return int(any(found.values()) or not inputs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=int, default=0, help="number of the first input")
    parser.add_argument("--only", type=int, help="read this one input here, with its traceback")
    parser.add_argument("--again", type=Path, metavar="DIR", help="read the inputs that lie in DIR/READER/NAME")
    parser.add_argument("--readers", action="append", help="only readers whose names begin so (repeatable)")
    parser.add_argument("--seconds", type=float, default=20.0, help="processor time per input")
    parser.add_argument("--memory", type=float, default=2.0, help="GB that an input may take")
    parser.add_argument("--out", default="/tmp/geozero-fuzz", help="where failing inputs go")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--progress", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options, *map(int, options.work.split(":")))
        return 0
    readers = chosen(options.readers)
    if options.again is not None:
        return again(options.again, readers, options.seconds)
    if options.only is not None:
        reader, files = input_of(readers, options.seed, options.only)
        place = Path(options.out).absolute() / f"{reader.name}/{options.only}"
        write_files(files, place / "input")
        print(f"{reader.name}: {place / 'input'}", flush=True)
        (place / "out").mkdir(exist_ok=True)
        reader.read(place / "input", place / "out")
        return 0
    began = time.monotonic()
    failures = run(options)
    kinds: dict[str, list[dict[str, Any]]] = {}
    for failure in failures:
        reader, files = input_of(readers, options.seed, failure["number"])
        failure["reader"] = reader.name
        kinds.setdefault(f"{reader.name}: {failure['found']}", []).append(failure)
        if len(kinds[f"{reader.name}: {failure['found']}"]) <= 3:
            write_files(files, Path(options.out) / f"{reader.name}/{failure['number']}/input")
    for kind, found in sorted(kinds.items(), key=lambda item: -len(item[1])):
        print(f"{len(found)}\t{kind}\t(number {found[0]['number']})")
    seconds = time.monotonic() - began
    print(
        f"{options.inputs} inputs, {len(readers)} readers, seed {options.seed}: {len(failures)} failed; {seconds:.0f} s"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
