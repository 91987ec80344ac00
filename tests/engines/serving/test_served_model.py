"""Which served models are the checkpoint that is asked for, and which only look like it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from weights import write_weights

from geozero.common.errors import InputError
from geozero.engines import checkpoint
from geozero.engines.serving.served_model import (
    ServedModel,
    check_weights,
    choose,
    pairs,
    servers_for,
    trusted_models,
    trusted_name,
)

HUB = "models--Qwen--Qwen3-VL-8B-Instruct/snapshots/0c35"


def make(path: Path, weights: bytes) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    write_weights(path / "model.safetensors", weights)
    return path


@pytest.fixture
def folds(tmp_path: Path) -> list[Path]:
    return [make(tmp_path / "models/filter" / f"fold-{i}", bytes([i])) for i in range(2)]


def row(name: str, root: Any = None, **values: Any) -> ServedModel:
    return ServedModel.of({"id": name, "root": root, **values})


def refuses(models: list[ServedModel], path: Path, trusted: str | None = None) -> str:
    with pytest.raises(InputError) as caught:
        choose(models, path, trusted, "http://host/v1")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_checkpoint_is_known_by_its_names(folds: list[Path], tmp_path: Path, monkeypatch: Any) -> None:
    path = folds[0]
    link = tmp_path / "current"
    link.symlink_to(path)
    (copied,) = [make(tmp_path / "copied/filter/fold-0", bytes([0]))]
    for name, root in (
        ("fold-0", None),
        ("filter/fold-0", None),
        (str(path), str(path)),
        ("fold-0", str(path)),
        ("fold-0", str(copied)),  # another directory of this machine with the same bytes
        ("fold-0", "/mnt/elsewhere/models/filter/fold-0"),  # another machine's
        ("fold-0", "fold-0"),
    ):
        assert choose([row(name, root)], path, None, "u").name == name
    assert choose([row("current", str(path))], link, None, "u").name == "current"
    monkeypatch.chdir(tmp_path)
    assert choose([row("fold-0", "models/filter/fold-0")], Path("models/filter/fold-0"), None, "u")
    hub = make(tmp_path / HUB, b"8b")
    assert choose([row("Qwen/Qwen3-VL-8B-Instruct", "Qwen/Qwen3-VL-8B-Instruct")], hub, None, "u")


def test_another_model_is_refused_whatever_it_is_called(folds: list[Path], tmp_path: Path) -> None:
    path = folds[0]
    assert "holds fold-1, not fold-0" in refuses([row("fold-1")], path)
    assert "holds Qwen/Other-7B" in refuses([row("Qwen/Other-7B", "Qwen/Other-7B")], path)
    assert "may be another model" in refuses([row("fold-0", str(folds[1]))], path)  # served under a wrong name
    assert "may be another model" in refuses([row("fold-0", "/mnt/models/old-filter/fold-0")], path)
    assert "an adapter" in refuses([row("fold-0", str(path), parent="base")], path)
    older = make(tmp_path / "older/filter/fold-0", b"trained last week")
    assert "may be another model" in refuses([row("fold-0", str(older))], path)
    assert "no model" in refuses([], path)


def test_names_that_every_run_has_do_not_tell_sft_from_rl(tmp_path: Path) -> None:
    sft, rl = (make(tmp_path / "runs" / name / "model", name.encode()) for name in ("sft-12ab", "a2grpo-34cd"))
    assert "may be another model" in refuses([row("model")], rl)
    assert "may be another model" in refuses([row("model", str(sft))], rl)
    assert "may be another model" in refuses([row("model", "/mnt/runs/sft-12ab/model")], rl)
    assert "not a2grpo-34cd/model" in refuses([row("sft-12ab/model")], rl)
    for one in (row("model", str(rl)), row("a2grpo-34cd/model"), row("model", "/mnt/runs/a2grpo-34cd/model")):
        assert choose([one], rl, None, "u") is one
    step = make(tmp_path / "runs/sft-12ab/checkpoint-40", b"40")
    assert "may be another model" in refuses([row("checkpoint-40")], step)


def test_a_trusted_name_is_taken_and_no_other(folds: list[Path]) -> None:
    assert choose([row("x", "/y"), row("gpt", "/z")], folds[0], "gpt", "u").name == "gpt"
    assert "holds fold-0, not 'gpt'" in refuses([row("fold-0")], folds[0], "gpt")


def test_weights_are_compared_by_their_hash(folds: list[Path]) -> None:
    check_weights(checkpoint.content_hash(folds[0]), folds[0], "u")
    with pytest.raises(InputError, match="other weights than"):
        check_weights(checkpoint.content_hash(folds[1]), folds[0], "u")
    with pytest.raises(InputError, match="have changed since it started"):
        check_weights("0" * 32, folds[0], "u")


def test_addresses_are_mapped_to_folds_and_models(folds: list[Path], tmp_path: Path) -> None:
    urls = {"fold-0": ["http://a"], "fold-1": ["http://b", "http://c"], "a2grpo": ["http://d"], "filter/fold-0": []}
    assert servers_for(["http://a"], folds[0], 0) == ["http://a"] == servers_for(urls, folds[0])
    assert servers_for(urls, folds[1], 1) == ["http://b", "http://c"]
    rl = make(tmp_path / "runs/a2grpo-34cd/model", b"rl")
    assert servers_for(urls, rl) == ["http://d"]
    other = make(tmp_path / "first", b"x"), make(tmp_path / "second", b"y")
    assert [servers_for(urls, path, fold) for fold, path in enumerate(other)] == [
        ["http://a"],
        ["http://b", "http://c"],
    ]
    with pytest.raises(InputError, match="no server is named for first, only for fold-0"):
        servers_for(urls, other[0])


def test_one_trusted_name_cannot_stand_for_two_folds(folds: list[Path]) -> None:
    assert trusted_name("gpt", folds[0], None, 1) == "gpt" and trusted_name(None, folds[0], 0, 2) is None
    with pytest.raises(InputError, match="'gpt', cannot stand for 2 filtering models"):
        trusted_name("gpt", folds[0], 0, 2)
    mapped = {"fold-0": "x", "fold-1": "y"}
    assert [trusted_name(mapped, path, fold, 2) for fold, path in enumerate(folds)] == ["x", "y"]
    assert trusted_name({"fold-1": "y"}, folds[0], 0, 2) is None


def test_words_of_the_command_line() -> None:
    assert pairs(["http://a/v1?x=y"]) == ["http://a/v1?x=y"]
    assert pairs(["m=http://a", "m=http://b"]) == {"m": ["http://a", "http://b"]}
    assert trusted_models(["gpt"]) == "gpt" and trusted_models(["a=b", "c=d"]) == {"a": "b", "c": "d"}
    for wrong in (["a", "b"], ["a=b", "a=c"], ["a=b", "c"]):
        with pytest.raises(InputError, match="--trust-server-model"):
            trusted_models(wrong)
    with pytest.raises(InputError, match="--url"):
        pairs(["m=http://a", "http://b"])
