"""What is meant for MLflow waits here on disk: training never waits for a tracking server, and nothing is lost.

`put` appends one JSON line to a file of this process's own under `runs/tracking/` and returns. A thread sends the
lines in order. While the server is down or slow they wait; what still waits when a process ends, however it ends, the
next one sends. An entry may be sent twice and counts once: metrics carry the time at which they were measured, and
MLflow keeps one of two that are equal.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from geozero.tracking import RUN_ID_FILE, Status, Tracker
from geozero.tracking.model_promotion import promote
from geozero.tracking.traces import log_traces

FOLDER = "tracking"  # under runs/
QUEUE, OFFSET, REFUSED = ".jsonl", ".sent", "refused.txt"
BATCH = 500  # entries read at a time
PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0)  # seconds between tries at a server that does not answer
FLUSH_SECONDS = 20.0
TRIES = 5  # of one entry, after which it is refused where the server takes others
AT = "@"  # begins a reference to the run that a stage's directory remembers
# MLflow's codes for what no second try can fix; everything else may be the server's or the network's state.
FINAL = {
    "INVALID_PARAMETER_VALUE",
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
    "BAD_REQUEST",
    "INVALID_STATE",
}


class Outbox:
    """The queue of one process for one tracking store; a Tracker's methods, but they return at once.

    A run is named by its MLflow id, or by `@DIRECTORY` for the run of a stage that may not exist yet.
    """

    def __init__(self, tracker: Tracker, folder: Path, tell: Callable[[str], None] = lambda line: None) -> None:
        self.tracker, self.folder, self._tell = tracker, folder, tell
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{time.time_ns()}-{os.getpid()}-{uuid.uuid4().hex[:8]}{QUEUE}"
        self._file: IO[bytes] = self._path.open("ab")
        fcntl.flock(self._file, fcntl.LOCK_EX)  # as long as this process lives, nobody else sends its lines
        self._lock, self._work, self._idle = threading.Lock(), threading.Event(), threading.Event()
        self._stopping, self._failing = threading.Event(), False
        self._failed: tuple[Any, int] = (None, 0)  # what failed last, and how often in a row
        self._sender = threading.Thread(target=self._send_all, daemon=True, name="mlflow-outbox")
        self._sender.start()
        self._work.set()  # what others have left

    # -- what can be said ----------------------------------------------------------------------------------------

    def child(self, parent: str, stage: str, run_dir: Path, tags: Mapping[str, str] | None = None) -> str:
        """The run of a stage under `parent`, made or reopened when the server answers; returns its reference."""
        run_dir.mkdir(parents=True, exist_ok=True)
        reference = f"{AT}{run_dir.resolve()}"
        self.put("child", reference, parent=parent, stage=stage, tags=dict(tags or {}))
        return reference

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

    def log_params(self, run: str, params: Mapping[str, Any]) -> None:
        self.put("log_params", run, params=params)

    def log_metrics(self, run: str, metrics: Mapping[str, float], step: int = 0) -> None:
        self.put("log_metrics", run, metrics=dict(metrics), step=step)

    def log_rows(self, run: str, rows: Path) -> None:
        """The rows of a JSON lines file, read when they are sent; points that the run has already are left out."""
        self.put("log_rows", run, path=str(rows.resolve()))

    def log_traces(self, run: str, rows: Sequence[Mapping[str, Any]]) -> None:
        self.put("log_traces", run, rows=[dict(row) for row in rows])

    def log_dataset(self, run: str, path: Path, digest: str, context: str = "training") -> None:
        self.put("log_dataset", run, path=str(path), digest=digest, context=context)

    def log_artifact(self, run: str, path: Path, folder: str | None = None) -> None:
        self.put("log_artifact", run, path=str(path.resolve()), folder=folder)

    def log_table(self, run: str, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        self.put("log_table", run, name=name, rows=list(rows))

    def register_checkpoint(self, run: str, path: Path, name: str, step: int = 0) -> None:
        self.put("register_checkpoint", run, path=str(path), name=name, step=step)

    def set_tag(self, run: str, key: str, value: str) -> None:
        self.put("set_tag", run, key=key, value=value)

    def compare(self, run: str, others: Sequence[str]) -> None:
        """Tag a run with the address of the page that puts others side by side."""
        self.put("compare", run, others=list(others))

    def finish(self, run: str, status: Status = "FINISHED") -> None:
        self.put("finish", run, status=status)

    def kill(self, parent: str) -> None:
        """Close a pipeline run, and those of its stages that still count as running, as killed."""
        self.put("kill", parent)

    # -- the queue -----------------------------------------------------------------------------------------------

    def put(self, what: str, run: str, **given: Any) -> None:
        """Append one entry; microseconds, whatever state the server is in."""
        entry = {"do": what, "run": run, "time": int(time.time() * 1000), "with": given}
        line = json.dumps(entry, default=str).encode() + b"\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()
            self._idle.clear()
        self._work.set()

    def flush(self, seconds: float = FLUSH_SECONDS) -> int:
        """Wait until all is sent, but no longer than `seconds` after the server last took something.

        Returns how many entries still wait; the next run sends them.
        """
        last, since = self.waiting(), time.monotonic()
        while not self._idle.wait(0.1):
            left = self.waiting()
            if left < last:
                last, since = left, time.monotonic()
            if time.monotonic() - since > seconds or not self._sender.is_alive():
                return left
        return self.waiting()

    def close(self, seconds: float = FLUSH_SECONDS) -> int:
        """Flush, end the thread, and give the file free for others; returns how many entries wait."""
        left = self.flush(seconds)
        self._stopping.set()
        self._work.set()
        self._sender.join(2.0)  # one that hangs in a request ends with the process
        if not left:
            self._remove(self._path)
        self._file.close()
        return left

    def waiting(self) -> int:
        """Entries on disk that no server has taken yet, of this process and of others."""
        return sum(len(_entries(path, None)[0]) for path in sorted(self.folder.glob(f"*{QUEUE}")))

    def _send_all(self) -> None:
        tries = 0
        while not self._stopping.is_set():
            self._work.wait()
            self._work.clear()
            done = self._send_others() and self._send_file(self._path)
            if done:
                if self._failing:
                    self._tell("tracking: the server answers again; nothing was lost")
                self._failing, tries = False, 0
                with self._lock:
                    if not _entries(self._path, 1)[0]:
                        self._idle.set()
                    else:
                        self._work.set()
            else:
                self._stopping.wait(PAUSES[min(tries, len(PAUSES) - 1)])
                tries += 1
                self._work.set()

    def _send_others(self) -> bool:
        """Files of processes that are gone: the kernel has freed their locks."""
        for path in sorted(self.folder.glob(f"*{QUEUE}")):
            if path == self._path:
                continue
            with suppress(FileNotFoundError), path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    continue  # somebody lives who sends it
                if not self._send_file(path):
                    return False
                self._remove(path)
        return True

    def _send_file(self, path: Path) -> bool:
        """Send what waits in a file; False where the server could not take it."""
        while not self._stopping.is_set():
            entries, offset = _entries(path, BATCH)
            if not entries:
                return True
            for group in _grouped(entries):
                try:
                    self._send(group)
                except Exception as error:
                    if _may_pass(error) and not self._stuck(group):
                        if not self._failing:
                            self._tell(f"tracking: the server does not answer, entries wait in {self.folder}")
                        self._failing = True
                        return False
                    self._refuse(group, error)
            _write_offset(path, offset)
        return False

    def _send(self, group: list[dict[str, Any]]) -> None:
        tracker, first = self.tracker, group[0]
        what, given = first["do"], first["with"]
        if what == "child":
            directory = Path(first["run"].removeprefix(AT))
            tracker.child(given["parent"], given["stage"], directory, given["tags"], first["time"])
            return
        run = _run_id(first["run"])
        if what == "log_metrics":
            points = [(k, e["with"]["step"], v, e["time"]) for e in group for k, v in e["with"]["metrics"].items()]
            tracker.log_points(run, points)
        elif what == "log_rows":
            tracker.log_curve(run, _rows(Path(given["path"])))
        elif what == "log_traces":
            log_traces(tracker, run, given["rows"])
        elif what == "finish":
            tracker.finish(run, given["status"], first["time"])
        elif what == "kill":
            tracker.kill(run, first["time"])
        elif what == "compare":
            tracker.set_tag(run, "compare", tracker.compare_address([_run_id(other) for other in given["others"]]))
        elif what == "promote":
            pipeline = tracker.run(run)
            if pipeline is not None:
                promote(tracker, pipeline)
        else:
            paths = {key: Path(value) for key, value in given.items() if key == "path"}
            getattr(tracker, what)(run, **{**given, **paths})

    def _stuck(self, group: list[dict[str, Any]]) -> bool:
        """Whether this fails again and again although the server answers: it must not hold up what comes after it.

        Only failures beside an answer count. Were those of an outage counted, a server that comes back between a last
        failed try and this question would lose what waited for it.
        """
        before = self._failed[1] if self._failed[0] == group[0] else 0
        self._failed = (group[0], before + 1 if self.tracker.answers() else before)
        return self._failed[1] > TRIES

    def _refuse(self, group: list[dict[str, Any]], error: Exception) -> None:
        """Keep what MLflow will never take, with the reason, and go on with the rest."""
        with (self.folder / REFUSED).open("a") as out:
            for entry in group:
                out.write(f"{' '.join(str(error).split())[:300]}\t{json.dumps(entry)}\n")
        self._tell(f"tracking: refused, see {self.folder / REFUSED}: {str(error).splitlines()[0][:200]}")

    @staticmethod
    def _remove(path: Path) -> None:
        path.unlink(missing_ok=True)
        path.with_suffix(OFFSET).unlink(missing_ok=True)


def _run_id(reference: str) -> str:
    if not reference.startswith(AT):
        return reference
    return (Path(reference.removeprefix(AT)) / RUN_ID_FILE).read_text().strip()


def _entries(path: Path, most: int | None) -> tuple[list[dict[str, Any]], int]:
    """Entries that were not sent yet, at most so many, and the offset behind the last of them."""
    entries: list[dict[str, Any]] = []
    try:
        offset = int(path.with_suffix(OFFSET).read_text())
    except (OSError, ValueError):
        offset = 0
    with suppress(FileNotFoundError), path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n") or (most is not None and len(entries) >= most):
                break  # being written, or cut off by a kill
            offset += len(line)
            with suppress(ValueError):
                entries.append(json.loads(line))
    return entries, offset


def _write_offset(path: Path, offset: int) -> None:
    """Overwritten in place: a kill in between costs a second sending, which counts once."""
    path.with_suffix(OFFSET).write_text(str(offset))


def _grouped(entries: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Neighbouring metrics of one run go in one request; everything else alone."""
    group: list[dict[str, Any]] = []
    for entry in entries:
        if group and not (entry["do"] == group[-1]["do"] == "log_metrics" and entry["run"] == group[-1]["run"]):
            yield group
            group = []
        group.append(entry)
    if group:
        yield group


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in path.read_text().splitlines():
        with suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def _may_pass(error: Exception) -> bool:
    """Whether a later try can succeed: not for a file that is gone, nor for what MLflow calls wrong."""
    code = getattr(error, "error_code", None)
    if code is not None:
        return code not in FINAL
    return not isinstance(
        error, FileNotFoundError | IsADirectoryError | TypeError | ValueError | KeyError | AttributeError
    )
