"""Everything imports in this environment: our modules, and the large packages that import each other."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
from paths import ROOT

pytestmark = pytest.mark.slow

PACKAGES = ["torch", "torchvision", "transformers", "datasets", "peft", "trl", "swift", "vllm"]
PACKAGES += ["mlflow", "prefect", "dvc"]
PACKAGES += ["torchaudio", "torchcodec", "flashinfer", "triton"]  # in the GPU environment only
OURS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for room in ("geozero", "flows")
    for path in (ROOT / room).rglob("*.py")
    if path.name != "__main__.py"
)


def imported(*names: str) -> None:
    """Import in one new process, prepared as ours are, whatever one of them does to the process."""
    code = "from geozero.common.process import prepare\nprepare()\n" + "".join(f"import {name}\n" for name in names)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"ended with code {done.returncode}: {done.stderr[-2000:]}"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_large_package_imports(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not part of this environment")
    imported(package)


def test_every_module_of_ours_imports_beside_all_others() -> None:
    assert len(OURS) > 200
    imported(*OURS)
