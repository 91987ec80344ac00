"""Both engines on one tiny random model: the same answers, greedy and sampled, reproducible, in order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_requests import GREEDY, LIMITS, SAMPLED, requests
from marks import chosen, needs_vllm, why
from tiny_random import build

from geozero.engines import Request, open_engine

pytestmark = pytest.mark.slow


def answers(engine_name: str, model: Path) -> dict[str, Any]:
    """All that the tests look at, as plain lists."""
    engine: Any = open_engine(engine_name, model, **LIMITS)
    asked = requests()
    written: set[int] = set()
    decode = engine.prompter.decode

    def watched(tokens: list[int]) -> str:
        written.update(tokens)
        return str(decode(tokens))

    engine.prompter.decode = watched

    def rows(found: list[list[Any]]) -> list[list[Any]]:
        return [[[c.text, c.finish_reason, c.n_tokens, c.seed, c.error] for c in row] for row in found]

    result = {
        "greedy": rows(engine.generate(asked, GREEDY)),
        "sampled": rows(engine.generate(asked, SAMPLED)),
        "some, backwards": rows(engine.generate(asked[3:6][::-1], SAMPLED)),
        "one more": rows(engine.generate([Request(asked[3].id, asked[3].messages, asked[3].image)], SAMPLED)),
        "about": engine.describe(),
        "suppressed": list(engine.prompter.vocabulary.suppressed),
    }
    # the answer's beginning is given: half of the requests, so that both kinds meet in one batch
    begun = [replace(r, prefix="<answer>") if number % 2 else r for number, r in enumerate(asked[:8])]
    result["begun"] = rows(engine.generate(begun, GREEDY))
    # more prompt than vLLM works off in a step: half prompts must not disturb what is drawn
    many = [Request(asked[3].id if i == 77 else f"m{i}", asked[3].messages, asked[3].image) for i in range(80)]
    result["among many"] = rows(engine.generate(many, SAMPLED)[77:78])
    # fed while it works: the rest joins when some are done
    engine.submit(asked[:4], SAMPLED)
    fed = dict(engine.collect())
    engine.submit(asked[4:], SAMPLED)
    fed |= engine.collect(len(asked))
    result["fed"] = rows([fed[r.id] for r in asked])
    result["left"] = len(engine.collect())
    result["written"] = sorted(written)
    if engine_name == "transformers":  # the demo's checkpoint says so of itself, and is sampled from all the same
        engine._swift.generation_config.do_sample = False
        result["greedy by default"] = rows(engine.generate(asked[:2], SAMPLED))
    engine.close()
    return result


def found_by(names: Sequence[str], model: Path) -> dict[str, dict[str, Any]]:
    """Each engine in a process of its own, as in use."""
    found = {}
    for name in names:
        done = subprocess.run([sys.executable, __file__, name, str(model)], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        found[name] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def both(tiny_random: Path) -> dict[str, dict[str, Any]]:
    return found_by(("transformers", "vllm") if chosen == "vllm" else ("transformers",), tiny_random)


@needs_vllm
def test_engines_agree_in_another_family(tmp_path: Path) -> None:
    found = found_by(("transformers", "vllm"), build(tmp_path, family="qwen2_5_vl"))
    for way in ("greedy", "sampled", "begun"):
        assert found["vllm"][way] == found["transformers"][way]
    assert len({row[0][0] for row in found["vllm"]["greedy"]}) > 4


def test_answers_are_the_same_text(both: dict[str, dict[str, Any]]) -> None:
    if len(both) < 2:
        pytest.skip(why)
    assert both["vllm"]["greedy"] == both["transformers"]["greedy"]
    assert both["vllm"]["sampled"] == both["transformers"]["sampled"]  # one sampler: a store may change its engine
    assert len({row[0][0] for row in both["vllm"]["greedy"]}) > 4  # the images and questions matter


def test_a_given_beginning_is_part_of_the_prompt_and_not_of_the_completion(both: dict[str, dict[str, Any]]) -> None:
    for found in both.values():
        assert [row[0][0] for row in found["begun"][::2]] == [row[0][0] for row in found["greedy"][:8:2]]
        for begun, free in zip(found["begun"][1::2], found["greedy"][1:8:2], strict=True):
            assert begun[0][0] != free[0][0] and not begun[0][0].startswith("<answer>")
    if len(both) == 2:
        assert both["vllm"]["begun"] == both["transformers"]["begun"]


def test_samples_are_reproducible_whatever_the_batch(both: dict[str, dict[str, Any]]) -> None:
    for found in both.values():
        assert found["some, backwards"] == found["sampled"][3:6][::-1]
        assert found["one more"] == found["among many"] == found["sampled"][3:4]
        assert len({c[0] for c in found["sampled"][0]}) == 3
        assert [c[3] for c in found["sampled"][0]] == list(
            range(found["sampled"][0][0][3], found["sampled"][0][0][3] + 3)
        )


def test_an_engine_is_fed_while_it_works(both: dict[str, dict[str, Any]]) -> None:
    for found in both.values():
        assert found["fed"] == found["sampled"] and found["left"] == 0


def test_a_checkpoint_whose_own_default_is_greedy_can_be_sampled_from(both: dict[str, dict[str, Any]]) -> None:
    assert both["transformers"]["greedy by default"] == both["transformers"]["sampled"][:2]


def test_a_request_that_cannot_be_asked_costs_only_itself(both: dict[str, dict[str, Any]]) -> None:
    for found in both.values():
        *fine, hostile, broken, long = found["sampled"]
        assert all(c[1] in ("stop", "length") for row in fine for c in row)
        assert [c[1] for c in broken] == ["error"] * 3 and "image_unreadable" in broken[0][4]
        assert "prompt_too_long" in long[0][4]
        assert [c[1] for c in hostile] == ["error"] * 3 and "special_token: <|image_pad|>" in hostile[0][4]


def test_no_special_token_is_ever_written(both: dict[str, dict[str, Any]]) -> None:
    for found in both.values():
        assert len(found["written"]) > 100 and not set(found["written"]) & set(found["suppressed"])


if __name__ == "__main__":
    print(json.dumps(answers(sys.argv[1], Path(sys.argv[2]))))


@needs_vllm
def test_vllm_starts_where_triton_is_installed(tiny_random: Path) -> None:
    # Every GPU machine has Triton, and vLLM then takes a model runner that refuses our sampler unless told otherwise.
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from geozero.common import process\n"
        "process.prepare()\n"
        "import vllm.config.vllm as config\n"
        "config.HAS_TRITON = True\n"
        "from geozero.engines.vllm_inprocess import VllmEngine\n"
        "if __name__ == '__main__':\n"
        "    VllmEngine(Path(sys.argv[1]), dtype='float32', max_pixels=16384, max_length=512).close()\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "VLLM_USE_V2_MODEL_RUNNER"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_random)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
