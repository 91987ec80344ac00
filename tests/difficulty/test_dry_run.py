"""The dry run: what is missing, what it would take by a measured warm-up, and that nothing is written."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from difficulty_world import FakeEngine, Opener, by_number, make_corpus, make_model, plan, sample

from geozero.common.errors import InputError
from geozero.difficulty.answer_store import answer_files
from geozero.difficulty.dry_run import SamplingPlan
from geozero.params import Adaptive, Select


@pytest.fixture
def world(tmp_path: Path) -> tuple[Path, list[Path], Path]:
    return make_corpus(tmp_path / "corpus", 12), [make_model(tmp_path / "model")], tmp_path / "store"


def test_the_plan_counts_and_measures_and_writes_nothing(world: Any, tmp_path: Path) -> None:
    opener = Opener(by_number, seconds=0.2)
    found = plan(*world, k=4, chunk=16, open_engine=opener)
    assert (found.n_samples, found.n_stored, found.n_missing, found.measured) == (48, 0, 192, 16)
    # 192 answers in chunks of 16 at 0.2 s each, and the untimed call before
    assert 12 * 0.2 <= found.seconds < 12 * 0.2 + 3
    assert found.tokens > 192 * 0.5 and 1000 < found.bytes < 10**6 and found.free > 0
    assert opener.opened[0].closed and not (tmp_path / "store").exists()
    text = "\n".join(found.lines())
    assert "192 to sample\t0 stored" in text and "for this worker\tmeasured on 16 answers" in text


def test_the_warm_up_is_like_the_whole_corpus(tmp_path: Path) -> None:
    """Corpora are written source by source; the longest answers (captions, here) must weigh what they weigh."""
    corpus, model = make_corpus(tmp_path / "corpus", 60), make_model(tmp_path / "model")
    where = corpus, [model], tmp_path / "store"
    found = plan(*where, k=4, chunk=64, open_engine=(opener := Opener(by_number)))
    kinds = Counter(name[-4] for name, _ in opener.asked[-64:])
    assert kinds == {"s": 16, "q": 16, "c": 16, "g": 16}
    done = sample(*where, k=4, chunk=64, open_engine=Opener(by_number))
    assert found.tokens == pytest.approx(done.tokens, rel=0.2)
    stored = sum(path.stat().st_size for path in answer_files(Path(done.directories[0])))
    assert found.bytes > 0.8 * stored  # small files weigh more, and an engine that answers by batch fills larger ones


def test_only_models_that_are_needed_are_planned(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus", 12)
    models = [make_model(tmp_path / f"fold-{i}", bytes([i])) for i in range(2)]

    def slow(name: str, model: Path, **_: Any) -> FakeEngine:
        time.sleep(0.3)
        return FakeEngine(model, by_number)

    both, one = (
        plan(corpus, models, tmp_path / "store", k=2, shard=shard, open_engine=slow).seconds for shard in ("0/1", "0/2")
    )
    assert both >= 0.6 and 0.3 <= one < both - 0.2


def test_what_is_stored_is_not_planned(world: Any) -> None:
    sample(*world, k=2, open_engine=Opener(by_number))
    found = plan(*world, k=4, open_engine=Opener(by_number))
    assert (found.n_stored, found.n_missing) == (96, 96)
    opener = Opener(by_number)
    done = plan(*world, k=2, open_engine=opener)
    assert done.n_missing == 0 and not opener.opened and "nothing is missing" in done.lines()


def test_a_worker_plans_its_own_share_and_a_limit_counts(world: Any) -> None:
    shares = [plan(*world, k=2, shard=f"{i}/2", open_engine=Opener(by_number)).n_missing for i in range(2)]
    assert sum(shares) == 96 and 0 < shares[0] < 96
    assert plan(*world, k=2, limit=5, open_engine=Opener(by_number)).n_samples == 5


def test_adaptive_plans_are_upper_bounds(world: Any) -> None:
    found = plan(*world, k=4, adaptive=Adaptive(), thresholds=Select(), open_engine=Opener(by_number))
    assert found.adaptive and any("at most" in line for line in found.lines())


def test_engine_options_reach_the_engine(world: Any) -> None:
    seen: dict[str, Any] = {}

    def open_engine(name: str, model: Path, **options: Any) -> FakeEngine:
        seen.update(options, name=name)
        return FakeEngine(model, by_number)

    plan(*world, k=2, engine="server", urls=["http://x"], timeout=5.0, restarts=1, open_engine=open_engine)
    assert (seen["name"], seen["urls"], seen["timeout"], seen["restarts"]) == ("server", ("http://x",), 5.0, 1)


def test_bad_input_is_refused(world: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such corpus"):
        plan(tmp_path / "none", *world[1:], open_engine=Opener(by_number))
    with pytest.raises(InputError, match="no such model"):
        plan(world[0], [tmp_path / "none"], world[2], open_engine=Opener(by_number))


def test_hours_are_written_as_hours() -> None:
    lines = SamplingPlan(10, 0, 80, False, 8, 4_000_000, 7.6 * 3600, 5_000_000, 10**12, "vllm", "asked for").lines()
    assert "time\tabout 7 h 36 min for this worker\tmeasured on 8 answers" in lines
    assert "tokens\tabout 4,000,000" in lines and "disk\tabout 5.0 MB\t1,000.0 GB free" in lines
