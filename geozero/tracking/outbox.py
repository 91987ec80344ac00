"""A queue on disk of everything that goes to MLflow: training never waits for a tracking server, and nothing is lost.

A call appends one JSON line to a file of this process's own under `runs/tracking/` and returns; a thread sends the
lines in order. Whatever is left when a process ends, however it ends, the next one sends. An entry may be sent twice
and counts once: metrics carry the time of their measurement, and MLflow keeps one of two equal points; everything else
replaces what it wrote before.
"""

from __future__ import annotations

import fcntl
import inspect
import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

from geozero.common.redaction import redact, redacted
from geozero.tracking import RUN_ID_FILE, Tracker

FOLDER = "tracking"  # under runs/
QUEUE, REFUSED = ".jsonl", "refused.txt"
BATCH = 500  # entries read at a time
PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0)  # seconds between tries at a server that does not answer
FLUSH_SECONDS = 20.0
TRIES = 5  # of one entry, after which it is refused if the server accepts others
AT = "@"  # begins a reference to the run that a stage's directory remembers
TIMED = ("child", "finish", "kill")  # methods that need the time of the call
# MLflow's codes for errors that a retry cannot fix; all others may be the state of the server or the network.
FINAL = (
    *("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"),
    *("BAD_REQUEST", "INVALID_STATE"),
)
FAULTS = (FileNotFoundError, IsADirectoryError, TypeError, ValueError, KeyError, AttributeError)  # nor these

Entry = dict[str, Any]
Given = ParamSpec("Given")


def _queued(method: Callable[Concatenate[Any, str, Given], object]) -> Callable[Concatenate[Outbox, str, Given], None]:
    """The method that appends an entry for `method` instead of calling it."""
    name, signature = method.__name__, inspect.signature(method)

    def put(box: Outbox, run: str, /, *args: Given.args, **kwargs: Given.kwargs) -> None:
        _, _, *given = signature.bind(None, run, *args, **kwargs).arguments.items()
        box.put(name, run, **dict(given))

    return put


class Outbox:
    """The queue of one process for one tracking store, with methods of `Tracker`.

    A run is named by its MLflow id, or by `@DIRECTORY` for the run of a stage that may not exist yet.
    """

    def __init__(self, tracker: Tracker, folder: Path, log: Callable[[str], None] = lambda line: None) -> None:
        self.tracker, self.folder, self._log = tracker, folder, log
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{time.time_ns()}-{os.getpid()}-{uuid.uuid4().hex[:8]}{QUEUE}"
        self._file = self._path.open("ab")
        fcntl.flock(self._file, fcntl.LOCK_EX)  # while this process lives, no other process sends its lines
        self._sent: dict[Path, int] = {}  # bytes of each file that the server has accepted
        self._failed: tuple[Entry | None, int] = (None, 0)  # the entry that failed last, and how often in a row
        self._lock, self._work, self._idle = threading.Lock(), threading.Event(), threading.Event()
        self._stopping = threading.Event()
        self._sender = threading.Thread(target=self._send_all, daemon=True, name="mlflow-outbox")
        self._sender.start()
        self._work.set()  # files that other processes have left

    @contextmanager
    def stage(self, parent: str, stage: str, run_dir: Path, tags: Mapping[str, str] | None = None) -> Iterator[str]:
        """`child`, finished when the block ends: FAILED after an error, KILLED after an interrupt or a cancel."""
        run = self.child(parent, stage, run_dir, tags)
        try:
            yield run
        except BaseException as error:
            self.finish(run, "FAILED" if isinstance(error, Exception) else "KILLED")
            raise
        self.finish(run)

    def child(self, parent: str, stage: str, run_dir: Path, tags: Mapping[str, str] | None = None) -> str:
        """The run of a stage under `parent`, made or reopened when the server answers; returns its reference."""
        run_dir.mkdir(parents=True, exist_ok=True)
        reference = f"{AT}{run_dir.resolve()}"
        self.put("child", reference, parent=parent, stage=stage, tags=dict(tags or {}))
        return reference

    log_params = _queued(Tracker.log_params)
    log_metrics = _queued(Tracker.log_metrics)
    log_rows = _queued(Tracker.log_rows)
    log_traces = _queued(Tracker.log_traces)
    log_dataset = _queued(Tracker.log_dataset)
    log_artifact = _queued(Tracker.log_artifact)
    log_table = _queued(Tracker.log_table)
    register_checkpoint = _queued(Tracker.register_checkpoint)
    set_tag = _queued(Tracker.set_tag)
    compare = _queued(Tracker.compare)
    note_reused = _queued(Tracker.note_reused)
    promote = _queued(Tracker.promote)
    finish = _queued(Tracker.finish)
    kill = _queued(Tracker.kill)

    def put(self, what: str, run: str, /, **given: Any) -> None:
        """Append one entry; takes microseconds, whatever state the server is in."""
        entry = {"do": what, "run": run, "time": int(time.time() * 1000), "with": redacted(given)}
        line = json.dumps(entry, default=lambda value: str(value.resolve() if isinstance(value, Path) else value))
        with self._lock:
            self._file.write(line.encode() + b"\n")
            self._file.flush()
            self._idle.clear()
        self._work.set()

    def flush(self, seconds: float = FLUSH_SECONDS) -> int:
        """Wait until all is sent, but no longer than `seconds` after the server last accepted something.

        Returns how many entries still wait; the next run sends them.
        """
        last, since = self.waiting(), time.monotonic()
        while not self._idle.wait(0.1) and self._sender.is_alive() and time.monotonic() - since <= seconds:
            left = self.waiting()
            if left < last:
                last, since = left, time.monotonic()
        return self.waiting()

    def close(self, seconds: float = FLUSH_SECONDS) -> int:
        """Flush, end the thread, and release the file for others; returns how many entries wait."""
        left = self.flush(seconds)
        self._stopping.set()
        self._work.set()
        self._sender.join(2.0)  # a thread that hangs in a request ends with the process
        if not left:
            self._path.unlink(missing_ok=True)
        self._file.close()
        return left

    def waiting(self) -> int:
        """Entries on disk that no server has accepted yet, of this process and of others."""
        n = 0
        for path in self.folder.glob(f"*{QUEUE}"):
            with suppress(FileNotFoundError):  # sent meanwhile
                n += path.read_bytes()[self._sent.get(path, 0) :].count(b"\n")
        return n

    def _send_all(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            self._work.wait()
            self._work.clear()
            if self._send_others() and self._send_file(self._path):
                if failures:
                    self._log("tracking: the server answers again; nothing was lost")
                failures = 0
                self._truncate()
            elif not self._stopping.is_set():
                if not failures:
                    self._log(f"tracking: the server does not answer, entries wait in {self.folder}")
                self._stopping.wait(PAUSES[min(failures, len(PAUSES) - 1)])
                failures += 1
                self._work.set()

    def _truncate(self) -> None:
        """Empty the file once all of it is sent, so that after a kill little is sent a second time."""
        with self._lock:
            if self._path.stat().st_size > self._sent.get(self._path, 0):
                self._work.set()
                return
            self._file.truncate(0)
            self._sent[self._path] = 0
            self._idle.set()

    def _send_others(self) -> bool:
        """Send the files of processes that are gone: the kernel has freed their locks."""
        for path in sorted(self.folder.glob(f"*{QUEUE}")):
            if path == self._path:
                continue
            with suppress(FileNotFoundError), path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    continue  # its process is alive and sends it
                if not self._send_file(path):
                    return False
                path.unlink(missing_ok=True)
        return True

    def _send_file(self, path: Path) -> bool:
        """Send the entries of a file; False if the server could not accept them."""
        while not self._stopping.is_set():
            start = self._sent.get(path, 0)
            entries, end = _read(path, start)
            if end == start:
                return True
            if not all(map(self._try, _groups(entries))):
                return False
            self._sent[path] = end
        return False

    def _try(self, group: list[Entry]) -> bool:
        """Send entries, or set them aside if no retry can succeed; False if they may be retried."""
        try:
            _send(self.tracker, group)
        except Exception as error:
            code = getattr(error, "error_code", None)
            final = isinstance(error, FAULTS) if code is None else code in FINAL
            if not (final or self._stuck(group[0])):
                return False
            if final and len(group) > 1:  # what is wrong with one entry must not cost the others
                return all(self._try([entry]) for entry in group)
            with (self.folder / REFUSED).open("a") as out:
                out.writelines(
                    f"{redact(' '.join(str(error).split()))[:300]}\t{json.dumps(entry)}\n" for entry in group
                )
            self._log(f"tracking: refused, see {self.folder / REFUSED}: {redact(str(error).splitlines()[0][:200])}")
        return True

    def _stuck(self, entry: Entry) -> bool:
        """Whether an entry fails again and again although the server answers: it must not hold up those behind it.

        Failures during an outage do not count. If they did, a server that came back between the last failed try and
        this check would lose the entries that waited for it.
        """
        failed, tries = self._failed
        self._failed = entry, (tries if failed == entry else 0) + self.tracker.answers()
        return self._failed[1] > TRIES


def _read(path: Path, start: int) -> tuple[list[Entry], int]:
    """The next entries of a file from an offset on, and the offset behind them."""
    entries: list[Entry] = []
    with path.open("rb") as file:
        file.seek(start)
        for line in islice(file, BATCH):
            if not line.endswith(b"\n"):
                break  # being written, or cut off by a kill
            start += len(line)
            with suppress(ValueError):
                entries.append(json.loads(line))
    return entries, start


def _groups(entries: list[Entry]) -> Iterator[list[Entry]]:
    """Consecutive metrics of one run go in one request; everything else alone."""
    for (what, _), group in groupby(entries, key=lambda entry: (entry["do"], entry["run"])):
        found = list(group)
        yield from [found] if what == "log_metrics" else ([entry] for entry in found)


def _send(tracker: Tracker, group: list[Entry]) -> None:
    """Make the tracker calls of one entry, or of several with metrics."""
    what, run, given = group[0]["do"], group[0]["run"], dict(group[0]["with"])
    if what in TIMED:
        given["at"] = group[0]["time"]
    if what == "child":
        tracker.child(**given, run_dir=Path(run.removeprefix(AT)))
    elif what == "log_metrics":
        rows = [(entry["with"].get("step", 0), entry["with"]["metrics"], entry["time"]) for entry in group]
        points = [(key, step, value, at) for step, metrics, at in rows for key, value in metrics.items()]
        tracker.log_points(_run_id(run), points)
    else:
        if what == "compare":
            given["others"] = [_run_id(other) for other in given["others"]]
        getattr(tracker, what)(_run_id(run), **given)


def _run_id(run: str) -> str:
    return (Path(run.removeprefix(AT)) / RUN_ID_FILE).read_text().strip() if run.startswith(AT) else run
