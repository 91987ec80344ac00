"""Which GPUs are visible, and which one each worker gets: masks, UUIDs, MIG instances, too many workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from geozero.common import process
from geozero.common.errors import InputError
from geozero.training import arguments

MIG = """GPU 0: NVIDIA A100 (UUID: GPU-aaaa)
  MIG 3g.20gb     Device  0: (UUID: MIG-1111)
  MIG 3g.20gb     Device  1: (UUID: MIG-2222)
GPU 1: NVIDIA A100 (UUID: GPU-bbbb)
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine with so many GPUs, and what nvidia-smi lists, if it is there."""

    def make(n: int, mask: str | None = None, listed: str | None = None) -> None:
        for number in range(n):
            (tmp_path / f"nvidia{number}").touch()
        (tmp_path / "nvidiactl").touch()
        monkeypatch.setattr(process, "DEVICES", tmp_path)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if mask is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mask)
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        if listed is not None:
            (tmp_path / "bin").mkdir()
            (tmp_path / "bin/nvidia-smi").write_text(f"#!/bin/sh\n/bin/cat <<END\n{listed}END\n")
            (tmp_path / "bin/nvidia-smi").chmod(0o755)

    return make


@pytest.mark.parametrize(
    ("n", "mask", "names"),
    [
        (8, None, [str(i) for i in range(8)]),
        (0, None, []),
        (8, "4,5, 6,7", ["4", "5", "6", "7"]),
        (8, "GPU-aaaa,MIG-1111", ["GPU-aaaa", "MIG-1111"]),
        (8, "1,1,2", ["1", "2"]),  # twice the same is one GPU
        (8, "2,-1,3", ["2"]),  # CUDA hides what stands behind a wrong entry
        (4, "2,9,3", ["2"]),
        (8, "", []),
        (8, "NoDevFiles", []),
    ],
)
def test_visible_gpus(
    machine: Any, monkeypatch: pytest.MonkeyPatch, n: int, mask: str | None, names: list[str]
) -> None:
    machine(n, mask)
    assert process.visible_gpus() == names
    monkeypatch.setattr(process, "has_gpu", lambda: True)
    if mask is not None:
        assert arguments.visible_gpus() == len(names)  # training counts them alike


def test_a_partitioned_gpu_stands_for_its_instances(machine: Any) -> None:
    machine(2, listed=MIG)
    assert process.visible_gpus() == ["MIG-1111", "MIG-2222", "1"]
    assert process.worker_gpus(None, "--workers") == ["MIG-1111", "MIG-2222", "1"]


def test_each_worker_has_a_gpu_of_its_own(machine: Any) -> None:
    machine(8, "4,5,6,7")
    assert process.worker_gpus(None, "--workers") == ["4", "5", "6", "7"]
    assert process.worker_gpus(2, "--workers") == ["4", "5"] and process.worker_gpus(1, "--workers") == [None]
    with pytest.raises(InputError, match="5 workers, but 4 visible GPUs in --workers"):
        process.worker_gpus(5, "--workers")
    assert process.gpu_name(1, "gpus") == "5"
    with pytest.raises(InputError, match="no GPU 4: CUDA_VISIBLE_DEVICES shows 4"):
        process.gpu_name(4, "gpus")


def test_without_gpus_workers_share_the_cores(machine: Any) -> None:
    machine(0)
    assert process.worker_gpus(None, "--workers") == [None] and process.worker_gpus(3, "--workers") == [None] * 3


@pytest.mark.parametrize(
    ("n", "mask", "listed", "names"),
    [
        (2, "1", MIG, ["GPU-bbbb"]),
        (2, None, MIG, ["MIG-1111", "MIG-2222", "GPU-bbbb"]),
        (2, "GPU-bbbb", MIG, ["GPU-bbbb"]),
        (2, "1", None, ["1"]),
        (0, None, None, ["all"]),  # a driver without device files
        (2, "", MIG, []),
    ],
)
def test_a_gpu_has_one_identity_whatever_shows_it(
    machine: Any, monkeypatch: pytest.MonkeyPatch, n: int, mask: str | None, listed: str | None, names: list[str]
) -> None:
    """A batch system may show each of two jobs another GPU as number 0."""
    machine(n, mask, listed)
    monkeypatch.setattr(process, "has_gpu", lambda: True)
    assert process.gpu_identities() == names
