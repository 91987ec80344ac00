"""`geozero download`: several data sets at once, each into a directory of its name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

from geozero.common.errors import InputError
from geozero.common.progress import Progress
from geozero.curation.download.arrival import judge, look
from geozero.curation.download.http import RESUME_HINT, TIMEOUT, fetch_file
from geozero.curation.download.hub import allow_hub, list_repository
from geozero.sources import get
from geozero.sources.catalogue import Entry, RemoteFile, Way, entry

JOBS = 4

Line = tuple[str, ...]


def about(source: str, directory: Path) -> Iterator[Line]:
    """What is known about a source, without going online: page, licence, size, and each way to get it."""
    known, adapter = entry(source), get(source)
    yield source, "page", known.page
    yield source, "licence", adapter.licence
    yield source, "holds", adapter.size
    for way in known.ways:
        size = f", {way.size}" if way.size else ""
        yield (
            source,
            "by hand" if way.kind == "manual" else way.kind,
            f"{way.by}{size}",
            way.address,
            f"seen {way.seen}",
        )
        for step in way.instructions(directory):
            yield source, "step", step
        if way.note:
            yield source, "note", way.note


def download(
    sources: Sequence[str], root: Path, *, jobs: int = JOBS, extras: bool = False, on_line: Callable[[Line], object]
) -> bool:
    """Fetch each source that can be fetched into `root/SOURCE`, print the steps for the others, and check all of them.

    Args:
        jobs: files that are fetched at a time.
        extras: also files that a set does not need, such as other people's splits.

    Returns:
        Whether nothing failed; a set that waits for a person is no failure.
    """
    ways = {source: (entry(source), entry(source).automatic) for source in dict.fromkeys(sources)}
    if any(way and way.kind == "hub" for _, way in ways.values()):
        allow_hub()
    fine = True
    stop = threading.Event()
    with Progress("download", unit="MB") as progress, ThreadPoolExecutor(jobs) as pool:
        count = _Count(progress)
        begun = [
            (source, name, future)
            for source, (_, way) in ways.items()
            if way is not None
            for name, future in _begin(way, root / source, pool, extras, count, stop)
        ]
        try:
            for source, name, future in begun:
                try:
                    on_line((source, "fetched", str(root / source / name), future.result()))
                except InputError as error:
                    fine = False
                    on_line((source, "failed", str(error)))
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for source, (known, way) in ways.items():
        fine &= _finish(source, known, way, root / source, on_line)
    return fine


def _begin(
    way: Way,
    into: Path,
    pool: ThreadPoolExecutor,
    extras: bool,
    count: Callable[[int, int], object],
    stop: threading.Event,
) -> Iterator[tuple[str, Future[str]]]:
    """Queue the files of a way: their names, and futures of how each was verified."""
    files = [file for file in way.files if extras or not file.extra]
    headers: dict[str, str] = {}
    try:
        if way.kind == "hub":
            files, headers = list_repository(way)
        elif way.kind == "zenodo":
            files = _in_record(way.doi, files)
    except InputError as error:
        failed: Future[str] = Future()
        failed.set_exception(error)
        yield "", failed
        return
    for file in files:
        yield file.name, pool.submit(fetch_file, file, into, count, stop, headers)


def _in_record(doi: str, files: Sequence[RemoteFile]) -> list[RemoteFile]:
    """The files with the addresses and checksums that the Zenodo record has for them."""
    import requests
    from pooch.downloaders import doi_to_repository

    record = SimpleNamespace(registry={})
    try:
        repository = doi_to_repository(doi, timeout=TIMEOUT)
        repository.populate_registry(record)
        urls = {file.name: repository.download_url(file.name) for file in files}
    except (requests.RequestException, ValueError, KeyError) as error:
        what = f"the record cannot be read: {' '.join(str(error).split())[:120]}"
        raise InputError(what, f"https://doi.org/{doi}", RESUME_HINT) from None
    return [file.model_copy(update={"url": urls[file.name], "hash": record.registry[file.name]}) for file in files]


def _finish(source: str, known: Entry, way: Way | None, directory: Path, on_line: Callable[[Line], object]) -> bool:
    """Say what remains to be done, and what the adapter finds."""
    arrival = look(source, directory)
    state, counts = judge(arrival, known)
    steps = () if state == "complete" else way.then if way else tuple(known.ways[0].instructions(directory))
    if state != "complete" and way is None:
        on_line((source, "by hand", known.page))
    for step in steps:
        on_line((source, "step", step))
    if directory.exists():
        on_line((source, state, counts))
        return state != "incomplete" and not (state == "not found" and way and not way.then)
    return True


class _Count:
    """Adds up bytes of several downloads, from several threads."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._lock = progress, threading.Lock()
        self._done = self._total = 0

    def __call__(self, arrived: int, announced: int) -> None:
        with self._lock:
            self._done += arrived
            self._total += announced
            self._progress.total = self._total // 1_000_000
            self._progress.at(self._done // 1_000_000)
