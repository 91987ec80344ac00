"""Engines that die, hang or grow: isolated in a process, started again, the deadly request alone given up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from paths import SUPPORT

from geozero.common.errors import InputError
from geozero.engines.base import ByBatch, Completion, EngineDied, Request, SamplingParams
from geozero.engines.isolated import IsolatedEngine
from geozero.engines.supervised import SupervisedEngine

TWO = SamplingParams(n=2)


def ask(*names: str) -> list[Request]:
    return [Request(name, [], b"") for name in names]


# --- the policy, with engines that only pretend ---


class Mortal(ByBatch):
    """Answers until it is asked what kills it; `wear` calls kill it, too."""

    name, reason = "mortal", "a test"

    def __init__(self, deadly: set[str], wear: int = 10**9) -> None:
        self.deadly, self.wear, self.calls, self.closed = deadly, wear, 0, False

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> list[list[Completion]]:
        assert not self.closed
        self.calls += 1
        if self.calls > self.wear or self.deadly & {r.id for r in requests}:
            raise EngineDied("it is gone")
        return [[Completion(r.id, "stop", 1)] * params.n for r in requests]

    def describe(self) -> dict[str, Any]:
        return {"engine": "mortal"}

    def close(self) -> None:
        self.closed = True


class Nursery:
    """Opens mortals and writes down what was waited."""

    def __init__(self, make: Callable[[int], Mortal]) -> None:
        self.make, self.opened, self.waited = make, [], []  # type: ignore[var-annotated]

    def __call__(self) -> Mortal:
        made = self.make(len(self.opened))
        self.opened.append(made)
        return made

    def supervised(self, **options: Any) -> SupervisedEngine:
        return SupervisedEngine(self, wait=self.waited.append, **options)


def test_a_dead_engine_is_replaced_and_its_chunk_done_again() -> None:
    nursery = Nursery(lambda number: Mortal({"b"} if number == 0 else set()))
    engine = nursery.supervised()
    found = engine.generate(ask("a", "b", "c"), TWO)
    assert [[c.text for c in row] for row in found] == [["a", "a"], ["b", "b"], ["c", "c"]]
    assert len(nursery.opened) == 2 and nursery.opened[0].closed and nursery.waited == [1.0]


@pytest.mark.parametrize("place", [0, 5, 15])
def test_the_one_request_that_kills_is_given_up_alone(place: int) -> None:
    nursery = Nursery(lambda _: Mortal({"r5" if place == 5 else f"r{place}"}))
    engine = nursery.supervised()
    found = engine.generate(ask(*(f"r{i}" for i in range(16))), TWO)
    for number, row in enumerate(found):
        assert [c.finish_reason for c in row] == (["error"] * 2 if number == place else ["stop"] * 2)
    assert found[place][0].error == "engine_died: it is gone"
    assert len(nursery.opened) <= 9
    nursery.make = lambda _: Mortal(set())
    assert engine.generate(ask("x"), TWO)[0][0].text == "x"


def test_an_engine_that_dies_of_everything_is_given_up_in_one_line() -> None:
    nursery = Nursery(lambda _: Mortal(set(), wear=0))
    engine = nursery.supervised(restarts=2)
    with pytest.raises(InputError, match="died 4 times in a row: it is gone") as caught:
        engine.generate(ask("a", "b"), TWO)
    assert "\n" not in str(caught.value) and "what is stored stays" in str(caught.value)
    assert nursery.waited == [1.0, 2.0, 4.0, 8.0]


def test_a_single_request_is_not_blamed_by_an_engine_that_never_answered() -> None:
    with pytest.raises(InputError, match="times in a row"):
        Nursery(lambda _: Mortal({"a"})).supervised().generate(ask("a"), TWO)


def test_an_engine_that_does_not_start_is_tried_a_few_times() -> None:
    tries: list[int] = []

    def start() -> Mortal:
        tries.append(1)
        raise EngineDied("port in use")

    with pytest.raises(InputError, match="port in use"):
        SupervisedEngine(start, restarts=2, wait=lambda _: None)
    assert len(tries) == 3


def test_an_engine_that_was_well_is_waited_for_though_it_is_refused_at_first() -> None:
    """A user's server that is being started again: no bad input, as its address was right before."""
    first, second = Mortal(set(), wear=1), Mortal(set())
    turns = iter([first, InputError("no server answers"), InputError("no server answers"), second])
    waited: list[float] = []

    def start() -> Mortal:
        turn = next(turns)
        if isinstance(turn, InputError):
            raise turn
        return turn

    engine = SupervisedEngine(start, wait=waited.append)
    engine.generate(ask("a"), TWO)
    assert engine.generate(ask("b"), TWO)[0][0].text == "b" and waited == [1.0, 2.0, 4.0]


def test_an_old_engine_is_renewed() -> None:
    nursery = Nursery(lambda _: Mortal(set()))
    engine = nursery.supervised(recycle=4)
    for _ in range(5):
        engine.generate(ask("a", "b"), TWO)
    assert [e.calls for e in nursery.opened] == [2, 2, 1] and [e.closed for e in nursery.opened] == [True, True, False]
    engine.close()
    assert nursery.opened[-1].closed and not nursery.waited


def fed(engine: SupervisedEngine, *calls: str) -> dict[str, str]:
    """What is answered when all calls are submitted before anything is collected: id → finish reason."""
    for names in calls:
        engine.submit(ask(*names), TWO)
    found = engine.collect(sum(map(len, calls)))
    assert engine.collect() == [] and all(len(row) == 2 for _, row in found)
    return {name: row[0].finish_reason for name, row in found}


def test_all_that_a_dead_engine_owes_is_asked_of_the_next() -> None:
    nursery = Nursery(lambda number: Mortal({"c"} if number == 0 else set()))
    assert fed(nursery.supervised(), "ab", "cd", "e") == dict.fromkeys("abcde", "stop")
    assert len(nursery.opened) == 2 and nursery.waited == [1.0]


def test_the_one_request_that_kills_is_given_up_alone_among_those_under_way() -> None:
    nursery = Nursery(lambda _: Mortal({"f"}))
    assert fed(nursery.supervised(), "abcd", "efgh") == {**dict.fromkeys("abcdegh", "stop"), "f": "error"}


def test_an_old_engine_gives_what_it_owes_before_it_is_renewed() -> None:
    nursery = Nursery(lambda _: Mortal(set()))
    engine = nursery.supervised(recycle=2)
    found: list[str] = []
    engine.submit(ask("a", "b"), TWO)
    for name in "cdef":
        engine.submit(ask(name), TWO)
        found += [name for name, _ in engine.collect()]
    assert found + [name for name, _ in engine.collect()] == list("abcdef")
    assert len(nursery.opened) > 1 and all(e.closed for e in nursery.opened[:-1]) and not nursery.waited


def test_an_old_engine_gives_what_it_owes_before_another_call_renews_it() -> None:
    nursery = Nursery(lambda _: Mortal(set()))
    engine = nursery.supervised(recycle=1)
    engine.generate(ask("a"), TWO)
    engine.submit(ask("b"), TWO)
    engine._n_requests = 1
    assert engine.generate(ask("c"), TWO)[0][0].text == "c"
    assert [name for name, _ in engine.collect()] == ["b"]


# --- a real process ---


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    made: list[IsolatedEngine] = []

    def start(timeout: float = 60.0, **arguments: Any) -> IsolatedEngine:
        made.append(IsolatedEngine(arguments, timeout, "fake_engine:open_fake"))
        return made[-1]

    yield start
    for engine in made:
        engine.close()


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_an_isolated_engine_answers_in_another_process_and_leaves_none(opened: Any) -> None:
    engine = opened()
    (row,) = engine.generate(ask("talk"), TWO)
    pid = engine.describe()["pid"]
    assert (engine.name, engine.reason) == ("obedient", "a test")
    assert [c.text for c in row] == [f"talk {pid}"] * 2 and pid != os.getpid()
    engine.close()
    assert gone(pid)


def test_death_hanging_and_failing_are_told_apart(opened: Any) -> None:
    with pytest.raises(EngineDied, match="was killed by SIGKILL: out of memory, sorry"):
        opened().generate(ask("die"), TWO)
    with pytest.raises(EngineDied, match="RuntimeError: no kernel for this"):
        opened().generate(ask("fail"), TWO)
    engine = opened()
    engine.timeout, pid = 0.5, engine.describe()["pid"]
    with pytest.raises(EngineDied, match=r"no answer within 0\.5 s"):
        engine.generate(ask("hang"), TWO)
    assert gone(pid)
    with pytest.raises(EngineDied):
        engine.generate(ask("a"), TWO)


def test_an_isolated_engine_works_on_while_nobody_waits(opened: Any, tmp_path: Path) -> None:
    once = tmp_path / "once"
    engine = opened(once=str(once))
    pid = engine.describe()["pid"]
    engine.submit(ask("a", "b"), TWO)
    engine.submit(ask("talk"), TWO)
    assert [name for name, _ in engine.collect(3)] == ["a", "b", "talk"] and engine.collect() == []
    engine.submit(ask("fail"), TWO)
    deadline = time.monotonic() + 10
    while not once.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert once.exists()  # asked before anybody collects
    assert gone(pid)  # the line is cut by then, and what was said last still lies in it
    with pytest.raises(EngineDied, match="RuntimeError: no kernel for this"):
        engine.collect()
    with pytest.raises(EngineDied):
        engine.submit(ask("a"), TWO)


def test_an_engine_that_hangs_while_it_is_fed_is_given_up(opened: Any, tmp_path: Path) -> None:
    engine = opened(once=str(tmp_path / "once"))
    engine.submit(ask("hang"), TWO)
    deadline = time.monotonic() + 60
    while not (tmp_path / "once").exists() and time.monotonic() < deadline:
        time.sleep(0.02)  # until it hangs it would go on taking what is sent
    engine.timeout, pid = 0.5, engine.describe()["pid"]
    with pytest.raises(EngineDied, match=r"no answer within 0\.5 s"):
        engine.submit([Request("large", [], bytes(8 << 20))], TWO)  # more than the line holds
    assert gone(pid)


def test_warnings_of_the_engine_reach_the_caller(opened: Any, caplog: pytest.LogCaptureFixture) -> None:
    (row,) = opened().generate(ask("warn"), TWO)
    assert row[0].text.startswith("warn") and "answers may differ" in caplog.text


def test_what_the_engine_refuses_at_its_start_is_bad_input(opened: Any) -> None:
    with pytest.raises(InputError, match=r"^no such model in here \(make it\)$"):
        opened(start="refuse")
    with pytest.raises(EngineDied, match="SIGKILL"):
        opened(start="die")


def test_a_real_process_that_dies_once_costs_one_restart(opened: Any, tmp_path: Path) -> None:
    once = str(tmp_path / "once")
    engine = SupervisedEngine(lambda: opened(once=once), wait=lambda _: None)
    first = engine.describe()["pid"]
    found = engine.generate(ask("a", "die", "b"), TWO)
    pids = {row[0].text.split()[1] for row in found}
    assert [row[0].text.split()[0] for row in found] == ["a", "die", "b"]
    assert len(pids) == 1 and str(first) not in pids
    engine.close()


def test_killing_the_caller_ends_its_engine(tmp_path: Path) -> None:
    script = (
        "import time\n"
        "from geozero.engines.isolated import IsolatedEngine\n"
        "print(IsolatedEngine({}, 60, 'fake_engine:open_fake').describe()['pid'], flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT)}
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment)
    assert child.stdout is not None
    pid = int(child.stdout.readline())
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    assert gone(pid)
