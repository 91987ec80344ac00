"""Marks that tests of several folders share."""

from __future__ import annotations

import pytest

from geozero.engines import choose_engine

chosen, why = choose_engine("auto")
needs_vllm = pytest.mark.skipif(chosen != "vllm", reason=why)
