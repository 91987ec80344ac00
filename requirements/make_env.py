"""Make an environment from the lock that fits this machine; a second run with nothing changed returns at once.

    python requirements/make_env.py [DIR]     (default: .venv)

Run by `make env` with the Python that the environment will have. Only the standard library is there yet.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUMS = "sha256sums"  # in requirements/: of every file that a pin may be installed from
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
IMPATIENT = ["--timeout", "15", "--retries", "1"]  # where a firewall swallows what is sent to that index
PYTHONS = ("3.11", "3.12", "3.13")
NEEDED_GB = {"cpu": 8, "gpu": 30}  # download cache and unpacked files together
CUDA_TORCH_GB = 10  # the same, where a CPU environment has to take the CUDA build of torch
REPORT_SECONDS = 15  # between progress lines where there is no terminal
TAIL_LINES = 8
LINE_WIDTH = 160  # pip lists every version that there is on one line
# what pip says of a version that its sources lack; the second where a constraint in its configuration names the package
UNAVAILABLE = r"No matching distribution found|ResolutionImpossible"
ROUTINE = r"Requirement already|Collecting|WARNING: Location|\s+(Using cached|Downloading|Obtaining)"

# What pip's output says of a failure, and what to do about it; the first that matches speaks.
ADVICE = [
    (r"No space left on device", "the disk is full: free some space, then run `make env` again"),
    (
        r"NewConnectionError|ConnectTimeout|ReadTimeout|ProxyError|name resolution|Connection refused|Max retries",
        "the package index cannot be reached: check the network or the proxy (`pip config list` shows what pip uses), "
        "then run `make env` again; what has been downloaded is kept",
    ),
    (
        UNAVAILABLE,
        "the package index does not serve this pin: use one that does, or refresh the lock (requirements/README.md)",
    ),
    (r"CERTIFICATE_VERIFY_FAILED", "the index's certificate is not trusted: set PIP_CERT to your certificate bundle"),
    (
        "DO NOT MATCH THE HASHES",
        "a package is not the file that was locked: a broken download, an index that builds packages anew, or worse; "
        "try another index",
    ),
    (
        r"Python\.h|command '\S*(gcc|cc)' failed",
        "a package has to be compiled: install a C compiler and Python's headers (Debian: gcc python3-dev)",
    ),
]


class Failed(Exception):
    """A step that did not work; the message is for the user and says what to do."""


def kind_of_machine() -> str:
    """`gpu` where an NVIDIA driver answers, else `cpu`; GEOZERO_ENV=cpu|gpu decides otherwise."""
    wanted = os.environ.get("GEOZERO_ENV", "")
    if wanted in NEEDED_GB:
        return wanted
    if wanted:
        raise Failed(f"GEOZERO_ENV is '{wanted}': set it to cpu or gpu, or leave it unset")
    # geozero/common/process.py has_gpu asks the same files; it cannot be imported before the environment is there
    return "gpu" if Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidia0").exists() else "cpu"


def identity(root: Path, kind: str) -> str:
    """What an environment cannot outlive: its place, its Python, and CPU or GPU packages."""
    return f"{kind} {platform.python_version()} {root}"


def content_hash(root: Path, kind: str) -> str:
    """Hash of everything that decides what is installed."""
    digest = hashlib.sha256()
    for name in (f"requirements/{kind}.lock", "pyproject.toml", "requirements/make_env.py"):
        digest.update((root / name).read_bytes() + b"\0")
    return digest.hexdigest()


def torch_pin(lock: str) -> str:
    """The version in the lock's line `torch==…`."""
    found = re.search(r"^torch==(\S+)$", lock, re.MULTILINE)
    if found is None:
        raise Failed("the lock pins no torch: restore it with `git checkout -- requirements`")
    return found.group(1)


def pins_of(text: str) -> list[str]:
    """The lines `name==version` of a lock."""
    return [line.strip() for line in text.splitlines() if "==" in line and not line.lstrip().startswith("#")]


def key_of(name: str, version: str) -> str:
    """A pin however its name is spelled."""
    return f"{re.sub(r'[-_.]+', '-', name).lower()}=={version.lower()}"


def known_hashes(requirements: Path) -> dict[str, list[str]]:
    """Pin → the hashes of its files, by the file names in `sha256sums`."""
    known: dict[str, list[str]] = {}
    for line in (requirements / SUMS).read_text().splitlines():
        if not line.startswith("#"):
            value, file = line.split()
            parts = re.sub(r"\.(tar\.gz|tar\.bz2|zip)$", "", file).rpartition("-")[::2]
            known.setdefault(key_of(*(file.split("-")[:2] if file.endswith(".whl") else parts)), []).append(value)
    return known


def with_hashes(pins: Sequence[str], requirements: Path) -> list[str]:
    """Pins as pip wants them for `--require-hashes`."""
    known = known_hashes(requirements)
    missing = [pin for pin in pins if key_of(*pin.split("==")) not in known]
    if missing:
        raise Failed(f"requirements/{SUMS} has no hash of {missing[0]}: run `python requirements/hashes.py refresh`")
    return [" ".join([pin, *(f"--hash=sha256:{value}" for value in known[key_of(*pin.split("=="))])]) for pin in pins]


def explain(log: str) -> str:
    """The advice for a failed pip run."""
    return next((advice for pattern, advice in ADVICE if re.search(pattern, log)), "the lines above say why")


class Progress:
    """Turns pip's lines into one line that counts packages: rewritten on a terminal, now and then in a log."""

    def __init__(self, total: int, started: float) -> None:
        self.total, self.started, self.done, self.last = total, started, 0, 0.0
        self.terminal = sys.stdout.isatty()

    def __call__(self, line: str) -> None:
        collected = re.match(r"(?:Collecting|Processing|Requirement already satisfied:) ?(\S*)", line)
        if collected:
            self.done += 1
            self._show(f"  {self.done} of {self.total} packages found: {collected.group(1)}")
        elif line.startswith("Installing collected packages"):
            self._show(f"  unpacking {line.count(',') + 1} packages", force=True)

    def _show(self, text: str, force: bool = False) -> None:
        now = time.monotonic()
        if self.terminal:
            print(f"\r\033[K{text}", end="", flush=True)
        elif force or now - self.last >= REPORT_SECONDS:
            print(f"{text} ({now - self.started:.0f} s)", flush=True)
            self.last = now

    def close(self) -> None:
        if self.terminal:
            print("\r\033[K", end="", flush=True)


def call(command: Sequence[str], log: Path, on_line: Callable[[str], None] = lambda line: None) -> str:
    """Run a command, its output to `log` and line by line to `on_line`.

    Returns:
        The output, where the command failed; "" where it worked.
    """
    environment = {**os.environ, "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    lines = []
    with log.open("a") as sink:
        sink.write(f"$ {' '.join(command)}\n")
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
        )
        assert child.stdout is not None
        for line in child.stdout:
            sink.write(line)
            lines.append(line)
            on_line(line.strip())
        code = child.wait()
    return "".join(lines) or f"ended with code {code}" if code else ""


def fail(what: str, output: str, log: Path) -> Failed:
    lines = [line for line in output.strip().splitlines() if not re.match(ROUTINE, line)]
    tail = "\n".join("  " + line[:LINE_WIDTH] for line in lines[-TAIL_LINES:])
    return Failed(f"{what} failed: {explain(output)}\n{tail}\n  (all of it: {log})")


def create(venv: Path, log: Path) -> None:
    print(f"making {venv.name} with Python {platform.python_version()}", flush=True)
    try:
        import ensurepip  # noqa: F401  Debian ships Python without it
    except ImportError:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise Failed(
            f"this Python cannot make environments: install python{version}-venv, then `make env` again"
        ) from None
    # where this Python is itself an activated environment's, go back to the one that it was made with
    base = getattr(sys, "_base_executable", sys.executable)
    output = call([base, "-m", "venv", str(venv)], log)
    if output:
        raise fail("making the environment", output, log)


def heal(venv: Path) -> None:
    """Forget packages that a kill left half unpacked: RECORD is written last, and pip does not miss it."""
    for info in venv.glob("lib/python*/site-packages/*.dist-info"):
        if not (info / "RECORD").is_file():
            shutil.rmtree(info)


def install_torch(root: Path, pin: str, pip: list[str], log: Path) -> None:
    """Install torch from the first source that has it.

    A CPU build is looked up in pip's own sources, then in PyTorch's index. Where only a mirror of PyPI answers, neither
    has it: then the CUDA build of the same release is taken, which also runs on a CPU, with gpu.lock's libraries.
    """
    print(f"installing torch {pin}", flush=True)
    # `===` compares the whole string: `==2.13.0` would also take a 2.13.0+cpu that lies in pip's find-links
    output = call([*pip, "--no-deps", f"torch==={pin}"], log)
    if re.search(UNAVAILABLE, output) and pin.endswith("+cpu"):
        print(f"  not in pip's own sources: asking {TORCH_CPU_INDEX}", flush=True)
        output = call([*pip, "--no-deps", f"torch==={pin}", "--extra-index-url", TORCH_CPU_INDEX, *IMPATIENT], log)
        if re.search(UNAVAILABLE, output):
            release = pin.removesuffix("+cpu")
            print(f"  no CPU build to be had: taking torch {release} for CUDA, about 4 GB more", flush=True)
            check_disk(root, NEEDED_GB["cpu"] + CUDA_TORCH_GB)
            output = call([*pip, f"torch==={release}", "-c", str(root / "requirements" / "gpu.lock")], log)
    if output:
        raise fail("installing torch", output, log)


def install(root: Path, venv: Path, kind: str, log: Path) -> None:
    """torch first, from where it is; then the lock without torch; then GeoZero itself, editable."""
    lock = root / "requirements" / f"{kind}.lock"
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--no-compile"]
    started = time.monotonic()
    install_torch(root, torch_pin(lock.read_text()), pip, log)
    pip.append("--no-deps")
    pins = [pin for pin in pins_of(lock.read_text()) if not pin.startswith("torch==")]
    rest = log.with_name("packages.txt")
    rest.write_text("\n".join(with_hashes(pins, root / "requirements")) + "\n")
    print(f"installing {len(pins)} packages of {lock.relative_to(root)} (some minutes the first time)", flush=True)
    progress = Progress(len(pins), started)
    output = call([*pip, "--require-hashes", "-r", str(rest)], log, progress)
    progress.close()
    if output:
        raise fail("installing the lock", output, log)
    output = call([*pip, "--no-build-isolation", "-e", str(root)], log)
    if output:
        raise fail("installing GeoZero itself", output, log)
    print(f"installed in {time.monotonic() - started:.0f} s", flush=True)


def compile_all(venv: Path, log: Path) -> None:
    """Byte-compile on all cores, so that no first import takes minutes; files for newer Pythons may fail."""
    print("compiling", flush=True)
    started = time.monotonic()
    compiler = [str(venv / "bin" / "python"), "-m", "compileall", "-q", "-j", "0", "-x", "/tests?/"]
    call([*compiler, str(venv / "lib")], log)
    print(f"compiled in {time.monotonic() - started:.0f} s", flush=True)


def check_disk(root: Path, needed: int) -> None:
    free = shutil.disk_usage(root).free / 1e9
    if free < needed:
        raise Failed(f"{free:.1f} GB free in {root}: the environment needs {needed} GB; free some space")


def check_machine(root: Path, kind: str) -> None:
    """Refuse early what would fail late."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" not in PYTHONS:
        raise Failed(f"this is Python {platform.python_version()}; the locks are for {', '.join(PYTHONS)}")
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise Failed(f"the locks are for Linux on x86_64, this is {sys.platform} on {platform.machine()}")
    check_disk(root, NEEDED_GB[kind])


def make(root: Path, venv: Path) -> None:
    """Bring the environment in `venv` up to date with lock and pyproject.toml.

    Raises:
        Failed: a step did not work; run again, it goes on from what is there.
    """
    kind = kind_of_machine()
    python, stamp, log = venv / "bin" / "python", venv / "geozero-env", root / ".geozero" / "install.log"
    here, wanted = identity(root, kind), content_hash(root, kind)

    def found() -> list[str]:
        return stamp.read_text().splitlines() if stamp.is_file() and python.exists() else []

    if found() == [here, wanted]:
        return
    log.parent.mkdir(exist_ok=True)
    with (log.parent / "install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second `make` waits here
        was = found()
        if was == [here, wanted]:
            return
        log.write_text("")
        if was and was[0] != here:
            print(f"{venv.name} was made for '{was[0]}', this is '{here}': making it anew", flush=True)
            venv.unlink() if venv.is_symlink() else shutil.rmtree(venv)  # a link's environment is another checkout's
        if not python.exists():
            check_machine(root, kind)
            create(venv, log)
        stamp.unlink(missing_ok=True)
        heal(venv)
        install(root, venv, kind, log)
        compile_all(venv, log)
        part = stamp.with_suffix(".part")
        part.write_text(f"{here}\n{wanted}\n")
        os.replace(part, stamp)
    shown = venv.relative_to(root) if venv.is_relative_to(root) else venv
    print(f"{venv.name} is ready ({kind}); `{shown}/bin/geozero doctor` tells what this machine can run", flush=True)


def main() -> int:
    try:
        make(ROOT, ROOT / (sys.argv[1] if len(sys.argv) > 1 else ".venv"))
    except Failed as error:
        print(f"make env: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nmake env: stopped; run it again, it goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
