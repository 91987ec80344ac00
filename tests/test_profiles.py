"""The profiles: every one is whole and valid, and params.yaml holds the demo's."""

from __future__ import annotations

from pathlib import Path

import pytest

from geozero import params

ROOT = Path(__file__).resolve().parents[1]
PROFILES = sorted((ROOT / "profiles").glob("*.yaml"))


@pytest.mark.parametrize("path", PROFILES, ids=lambda p: p.stem)
def test_a_profile_is_valid_and_bears_its_file_name(path: Path) -> None:
    assert params.load(path).profile == path.stem


def test_params_yaml_holds_the_demo_s_profile() -> None:
    assert (ROOT / "params.yaml").read_text() == (ROOT / "profiles/cpu-toy.yaml").read_text()
