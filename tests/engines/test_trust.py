"""A stranger's checkpoint: what could run as a program is refused, what is broken is one line."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from weights import write_weights

from geozero.cli.app import app
from geozero.common.errors import InputError
from geozero.common.process import TRUST_CHECKPOINT
from geozero.engines import trust
from geozero.engines.checkpoint import resolve

Spoil = Callable[[Path], object]


@pytest.fixture(autouse=True)
def untrusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRUST_CHECKPOINT, "")  # also puts back what a command sets


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model_type": "qwen3_vl", "text_config": {"vocab_size": 12}}))
    write_weights(path / "model.safetensors")
    return path


def write(name: str, content: object) -> Spoil:
    def spoil(model: Path) -> None:
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text(content if isinstance(content, str) else json.dumps(content))

    return spoil


OWN = {"AutoProcessor": "own.Own"}
DANGEROUS = {
    "in a video processor": write("processor_config.json", {"video_processor": {"auto_map": OWN}}),
    "in an image processor": write("processor_config.json", {"image_processor": {"auto_map": OWN}}),
    "video_preprocessor": write("video_preprocessor_config.json", {"auto_map": OWN}),
    "tokenizer": write("tokenizer_config.json", {"auto_map": OWN}),
    "in a list": write("config.json", {"parts": [[{"auto_map": OWN}]]}),
    "escaped name": write("config.json", '{"\\u0061uto_map": {"AutoModel": "own.Own"}}'),
    "given twice": write("config.json", '{"x": {"auto_map": {"AutoModel": "own.Own"}}, "x": {}}'),
    "other folder": write("talker/config.json", {"auto_map": OWN}),
    "unknown JSON": write("whatever.JSON", {"auto_map": OWN}),
    "Python": write("modeling_own.py", ""),
    "Python below": write("a/b/own.py", ""),
    "compiled": write("own.cpython-311-x86_64-linux-gnu.so", ""),
    "plugins of ms-swift": write("args.json", {"external_plugins": ["/tmp/own"]}),
    **{f"pickle {suffix}": write(f"deep/x{suffix}", "") for suffix in (".bin", ".pt", ".PTH", ".pkl", ".ckpt")},
}


@pytest.mark.parametrize("kind", DANGEROUS)
def test_code_in_a_checkpoint_is_refused_unless_it_is_trusted(
    kind: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resolve(model) == model
    DANGEROUS[kind](model)
    with pytest.raises(InputError, match=r"brings its own code|pickled weights") as caught:
        resolve(model)
    assert "--trust-checkpoint" in str(caught.value)
    monkeypatch.setenv(TRUST_CHECKPOINT, "1")
    assert resolve(model) == model


BROKEN: dict[str, tuple[Spoil, str]] = {
    "config missing": (lambda m: (m / "config.json").unlink(), "config.json is missing"),
    "config truncated": (write("config.json", '{"model_type": "qw'), "unreadable JSON"),
    "tokenizer truncated": (write("tokenizer.json", '{"added_tokens": ['), "unreadable JSON"),
    "processor truncated": (write("preprocessor_config.json", "{"), "unreadable JSON"),
    "not UTF-8": (lambda m: (m / "tokenizer.json").write_bytes(b"\xff\xfe\xfa"), "unreadable JSON"),
    "too deep": (write("config.json", "[" * 100_000), "unreadable JSON"),
    "a list": (write("config.json", "[]"), "not a JSON object"),
    "null": (write("generation_config.json", "null"), "not a JSON object"),
    "NaN": (write("preprocessor_config.json", '{"image_mean": [NaN]}'), "the number NaN"),
    "infinite": (write("config.json", '{"model_type": "qwen3_vl", "x": 1e999}'), "the number 1e999"),
    "text_config": (write("config.json", {"text_config": [1]}), "wrong type"),
    "vision_config": (write("config.json", {"vision_config": 3}), "wrong type"),
    "vocab_size": (write("config.json", {"text_config": {"vocab_size": "many"}}), "wrong type"),
    "architectures": (write("config.json", {"architectures": "Qwen"}), "wrong type"),
    "added_tokens": (write("tokenizer.json", {"added_tokens": {"a": 1}}), "wrong type"),
    "a token without text": (write("tokenizer.json", {"added_tokens": [{"special": True}]}), "wrong type"),
    "decoder": (write("tokenizer_config.json", {"added_tokens_decoder": [1]}), "wrong type"),
    "index": (write("model.safetensors.index.json", {"weight_map": {"a": 1}}), "unreadable weight index"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_checkpoint_is_one_line(kind: str, model: Path) -> None:
    spoil, words = BROKEN[kind]
    spoil(model)
    with pytest.raises(InputError, match=words) as caught:
        resolve(model)
    assert "\n" not in str(caught.value) and str(model) in str(caught.value)


def test_a_huge_json_is_not_read(model: Path) -> None:
    with (model / "tokenizer.json").open("w") as file:
        file.truncate(200 << 30)  # sparse
    with pytest.raises(InputError, match="a JSON file of 214748 MB"):
        resolve(model)


def test_the_flag_reaches_child_processes_and_only_where_it_is_given(tmp_path: Path) -> None:
    words = ["predict", str(tmp_path / "no.png"), "--model", "x"]
    CliRunner().invoke(app, words)
    assert not trust.trusted()
    CliRunner().invoke(app, [*words, "--trust-checkpoint"])
    assert trust.trusted() and os.environ[TRUST_CHECKPOINT] == "1"


def test_a_function_that_does_not_end_is_interrupted() -> None:
    def forever() -> None:
        while True:
            try:
                for _ in range(10**9):
                    pass
            except Exception:  # what an endless template may do
                pass

    began = time.monotonic()
    assert trust.within(0.2, forever) is None
    assert time.monotonic() - began < 5
    assert trust.within(5, lambda: "done") == "done"


@pytest.fixture
def engine_files(tiny_random: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_random, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "did not end within"),
        ("{% for a in range(1000000000) %}{% endfor %}", "template fails: OverflowError"),
        ("{{ messages.nothing.at.all }}", "template fails"),
        ("{% for", "template fails"),
    ],
)
def test_a_hostile_chat_template_is_one_line(
    template: str, words: str, engine_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine_requests import requests

    from geozero.engines.base import EngineOptions
    from geozero.engines.prompts import Prompter

    (engine_files / "chat_template.jinja").write_text(template)
    monkeypatch.setattr(trust, "RENDER_SECONDS", 0.5)
    prompter = Prompter(engine_files, EngineOptions())
    with pytest.raises(InputError, match=words):
        prompter.prepare(requests()[0])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: (m / "tokenizer.json").unlink(),
        lambda m: (
            (m / "preprocessor_config.json").unlink(missing_ok=True)
            or (m / "processor_config.json").unlink(missing_ok=True)
        ),
        lambda m: (m / "tokenizer.json").write_text("{}"),
    ],
    ids=["no tokenizer", "no processor", "an empty tokenizer"],
)
def test_what_only_a_library_notices_is_one_line(spoil: Spoil, engine_files: Path) -> None:
    from geozero.engines.base import EngineOptions
    from geozero.engines.prompts import Prompter

    spoil(engine_files)
    with pytest.raises(InputError) as caught:
        Prompter(engine_files, EngineOptions())
    assert "\n" not in str(caught.value) and "download" in str(caught.value)


def test_transformers_imports_no_code_even_when_it_is_told_to(
    engine_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last line of defence, behind `resolve`: ms-swift passes trust_remote_code=True in many places."""
    from transformers import AutoConfig, dynamic_module_utils

    ran = tmp_path / "ran"
    (engine_files / "own.py").write_text(f"open({str(ran)!r}, 'w')\nclass Own: pass\n")
    config: dict[str, Any] = {"model_type": "nobody_knows", "auto_map": {"AutoConfig": "own.Own"}}
    (engine_files / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(dynamic_module_utils, "get_class_in_module", dynamic_module_utils.get_class_in_module)
    trust.forbid_code()
    with pytest.raises(InputError, match="its own code"):
        AutoConfig.from_pretrained(engine_files, trust_remote_code=True)
    assert not ran.exists()


@pytest.mark.slow
def test_ms_swift_trusts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from geozero.common import process

    process.prepare()
    from swift.model.register import ModelLoader
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "get_class_in_module", dynamic_module_utils.get_class_in_module)
    monkeypatch.setattr(ModelLoader, "default_trust_remote_code", True)
    trust.forbid_code_in_swift()
    assert ModelLoader.default_trust_remote_code is False
