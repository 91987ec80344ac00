"""Fixtures that more than one room's tests use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

TESTS = Path(__file__).resolve().parent
# Tests start themselves and small scripts as processes, which find this checkout and the tests' helpers by it.
PLACES = [TESTS.parent, TESTS, TESTS / "support"]
os.environ["PYTHONPATH"] = os.pathsep.join([*map(str, PLACES), *filter(None, [os.environ.get("PYTHONPATH")])])
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: several threads only get into each other's way here
os.environ.pop("MLFLOW_TRACKING_URI", None)  # it would replace the default store of every test

settings.register_profile("unhurried", deadline=None)  # a busy machine is no failure
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def tiny_random(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random tiny Qwen3-VL checkpoint, built once a session (slow: it imports transformers)."""
    from tiny_random import build

    return build(tmp_path_factory.mktemp("model") / "tiny-random")


@pytest.fixture
def no_wordnet(monkeypatch: pytest.MonkeyPatch) -> None:
    """METEOR as it is where nltk finds no WordNet: without synonyms."""
    from geozero.metrics import captions

    def absent() -> None:
        raise LookupError("no WordNet")

    monkeypatch.setattr(captions, "wordnet_synsets", absent)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever is `long`, or needs the extra `ray` or `deepspeed`, is `slow` too: `-m "not slow"` leaves it out."""
    for item in items:
        if any(item.get_closest_marker(name) for name in ("long", "ray", "deepspeed")):
            item.add_marker("slow")
