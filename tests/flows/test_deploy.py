"""deploy/: what can be said of it without Docker, Kubernetes or Slurm: it parses, and what it names is there."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from flows_checkout import ROOT, checkout, settings

from geozero.stack.services import HEARTBEAT_SECONDS, POOLS

DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "docker/docker-compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILES = sorted((DEPLOY / "docker").glob("*.Dockerfile"))
CHECKOUT = "${GEOZERO_CHECKOUT:-../..}:/geozero"  # mounted whole: dvc.lock, DVC's cache and models belong to its state
INSTRUCTIONS = {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "CMD"}
PLACE = re.compile(r"\{\{ (\w+) \}\}")


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Instruction and words, continued lines joined, comments left out."""
    lines = [line for line in dockerfile.read_text().splitlines() if line.strip() and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(line.split()[0], " ".join(line.split()[1:])) for line in joined]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_is_short_and_copies_what_is_there(dockerfile: Path) -> None:
    found = instructions(dockerfile)
    assert found[0][0] == "FROM" and ":" in found[0][1]
    assert {name for name, _ in found} <= INSTRUCTIONS
    assert len(found) <= 14
    copied = [word for name, words in found if name == "COPY" for word in words.split()[:-1] if word[:2] != "--"]
    assert [word for word in copied if not (ROOT / word).exists()] == []
    ends_as = [words for name, words in found if name == "USER"]
    assert ends_as and ends_as[-1] != "root"
    for _, words in found:
        assert "apt-get install" not in words or ("--no-install-recommends" in words and "rm -rf /var/lib/apt" in words)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_who_runs_in_an_image_may_write_where_volumes_are_mounted_and_dvc_needs_no_git(dockerfile: Path) -> None:
    ours = [service for service in SERVICES.values() if service.get("image", "").startswith("geozero")]
    mounted = {volume.rpartition(":")[2].replace("/geozero", ".") for s in ours for volume in s.get("volumes", [])}
    found = instructions(dockerfile)
    (user,) = [words.split(":")[0] for name, words in found if name == "USER"]
    assert any(name == "RUN" and f"useradd --create-home --uid {user} " in words for name, words in found)
    (owned,) = [words.partition(f"chown {user}:{user}")[2].split() for name, words in found if f"chown {user}" in words]
    assert mounted and mounted < set(owned)
    assert ".git" in (ROOT / ".dockerignore").read_text().splitlines()
    assert ("RUN", "dvc config --local core.no_scm true") in found[[name for name, _ in found].index("USER") :]


def test_both_images_are_built_by_the_composition() -> None:
    built = {service["build"]["dockerfile"]: service for service in SERVICES.values() if "build" in service}
    assert set(built) == {str(path.relative_to(ROOT)) for path in DOCKERFILES}
    for service in built.values():
        assert (DEPLOY / "docker" / service["build"]["context"]).resolve() == ROOT


def test_the_composition_waits_for_services_that_it_has() -> None:
    for name, service in SERVICES.items():
        for other, condition in service.get("depends_on", {}).items():
            assert other in SERVICES, f"{name} waits for {other}"
            if condition["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other], f"{other} says nothing of its health"
    named = {volume.split(":")[0] for s in SERVICES.values() for volume in s.get("volumes", []) if volume != CHECKOUT}
    assert {volume for volume in named if not volume.startswith(".")} == set(COMPOSE["volumes"])
    assert all((DEPLOY / "docker" / volume).is_file() for volume in named if volume.startswith("."))


def test_nothing_of_the_composition_listens_outside_the_machine_or_knows_a_password() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports and all(port.startswith("127.0.0.1:") for port in ports)
    text = (DEPLOY / "docker/docker-compose.yaml").read_text()
    assert "${POSTGRES_PASSWORD:?" in text
    assert re.findall(r"postgres:([^@$\s]*)@", text) == []


def test_workers_of_the_composition_work_for_pools_that_exist_and_send_heartbeats() -> None:
    commands = {name: s for name, s in SERVICES.items() if isinstance(s.get("command"), list)}
    workers = {name: s for name, s in commands.items() if "worker" in s["command"]}
    assert {s["command"][s["command"].index("--pool") + 1] for s in workers.values()} == set(POOLS)
    for service in workers.values():
        assert service["environment"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == str(HEARTBEAT_SECONDS)
        assert service["init"] is True


def test_the_kubernetes_template_names_only_variables_that_it_declares() -> None:
    template = json.loads((DEPLOY / "kubernetes/gpu-job-template.json").read_text())
    declared = template["variables"]["properties"]
    used = set(PLACE.findall(json.dumps(template["job_configuration"])))
    assert used <= set(declared)
    assert set(declared) - used == set()
    (container,) = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]["containers"]
    assert "nvidia.com/gpu" in container["resources"]["limits"]
    spec = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    assert volumes["shared-memory"]["emptyDir"]["medium"] == "Memory"
    users = {words for path in DOCKERFILES for name, words in instructions(path) if name == "USER"}
    assert users == {"{0}:{0}".format(spec["securityContext"]["fsGroup"])}  # else the claim is root's alone
    assert template["job_configuration"]["job_manifest"]["spec"]["backoffLimit"] == 0  # Prefect decides on retries


def test_prefect_kubernetes_takes_the_template_and_its_pods_have_no_privileges() -> None:
    """What its `KubernetesWorkerJobConfiguration` requires of a job, where the library is not installed."""
    template = json.loads((DEPLOY / "kubernetes/gpu-job-template.json").read_text())
    manifest = template["job_configuration"]["job_manifest"]
    assert (manifest["apiVersion"], manifest["kind"]) == ("batch/v1", "Job") and "labels" in manifest["metadata"]
    spec, pod = manifest["spec"], manifest["spec"]["template"]["spec"]
    assert (spec["completions"], spec["parallelism"], pod["restartPolicy"]) == (1, 1, "Never")
    assert all({"name", "image"} <= container.keys() for container in pod["containers"])
    (worker,) = [
        o for o in yaml.safe_load_all((DEPLOY / "kubernetes/worker.yaml").read_text()) if o["kind"] == "Deployment"
    ]
    for one in (pod, worker["spec"]["template"]["spec"]):
        assert one["securityContext"]["runAsNonRoot"] is True and one["securityContext"]["runAsUser"] > 0
        for container in one["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.slow
def test_prefect_kubernetes_s_own_model_takes_the_template() -> None:
    worker = pytest.importorskip("prefect_kubernetes.worker", reason="prefect-kubernetes is in no lock")
    template = json.loads((DEPLOY / "kubernetes/gpu-job-template.json").read_text())
    values = {"image": "registry/geozero@sha256:" + 64 * "0", "gpus": 8}

    def made() -> Any:
        return asyncio.run(worker.KubernetesWorkerJobConfiguration.from_template_and_values(template, values))

    pod = made().job_manifest["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 8
    assert {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]} == {"/dev/shm", "/geozero"}
    del template["job_configuration"]["job_manifest"]["spec"]["completions"]
    with pytest.raises(ValueError, match="completions"):
        made()


def test_images_are_pinned() -> None:
    named = [words for path in DOCKERFILES for name, words in instructions(path) if name == "FROM"]
    named += [service["image"] for service in SERVICES.values() if not service["image"].startswith("geozero:")]
    assert named and all(re.search(r":\d+\.\d+", name) for name in named)
    image = json.loads((DEPLOY / "kubernetes/gpu-job-template.json").read_text())["variables"]["properties"]["image"]
    assert "default" not in image and re.search(image["pattern"], "registry/geozero@sha256:" + 64 * "0")


def test_a_run_in_an_image_enters_the_images_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import checkout as steps

    for path in DOCKERFILES:
        found = instructions(path)
        (place,) = [words for name, words in found if name == "WORKDIR"]
        assert any(name == "ENV" and f"{steps.IMAGE_CHECKOUT}={place}" in words for name, words in found)
    monkeypatch.chdir("/")
    monkeypatch.setenv(steps.IMAGE_CHECKOUT, str(tmp_path))
    monkeypatch.setattr(steps, "get_client", lambda **_: nullcontext())
    monkeypatch.setattr(steps, "flow_run", SimpleNamespace(id=None))
    assert steps.enter("/elsewhere/geozero") == {"directory": str(tmp_path)}
    assert Path.cwd() == tmp_path


def test_the_kubernetes_objects_belong_together() -> None:
    objects = list(yaml.safe_load_all((DEPLOY / "kubernetes/worker.yaml").read_text()))
    by_kind = {one["kind"]: one for one in objects}
    assert len(by_kind) == len(objects)
    namespace = by_kind["Namespace"]["metadata"]["name"]
    assert {one["metadata"].get("namespace", namespace) for one in objects} == {namespace}
    account = by_kind["ServiceAccount"]["metadata"]["name"]
    assert by_kind["RoleBinding"]["subjects"][0]["name"] == account
    assert by_kind["RoleBinding"]["roleRef"]["name"] == by_kind["Role"]["metadata"]["name"]
    assert by_kind["Deployment"]["spec"]["template"]["spec"]["serviceAccountName"] == account
    pins = (ROOT / "requirements/cpu.lock").read_text()
    (image,) = re.findall(r"prefecthq/prefect:([\d.]+)-", (DEPLOY / "kubernetes/worker.yaml").read_text())
    assert f"prefect=={image}" in pins.splitlines()


def test_the_slurm_script_is_a_shell_script_that_refuses_to_start_without_a_server() -> None:
    script = DEPLOY / "slurm/worker.sbatch"
    subprocess.run(["bash", "-n", str(script)], check=True)
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode != 0 and "PREFECT_API_URL" in done.stderr
    assert "--signal=B:TERM@" in script.read_text()


@pytest.mark.parametrize(("nodes", "code"), [(3, 0), (1, 0), (2, 5)])
def test_the_slurm_script_of_several_nodes_runs_the_command_on_the_first_and_lets_the_others_join(
    nodes: int, code: int, tmp_path: Path
) -> None:
    """srun and scontrol are stand-ins: each `srun` leaves its words and what torchrun's rendezvous needs."""
    (tmp_path / ".venv/bin").mkdir(parents=True)
    scripts = {
        "scontrol": '[ "$*" = "show hostnames n[1-3]" ] && printf "n1\\nn2\\nn3\\n"',
        "srun": 'export SLURM_PROCID=1; while [ "${1#--}" != "$1" ]; do echo "$1" >> "srun-$$"; shift; done; exec "$@"',
        "geozero": 'echo "$NODE_RANK $MASTER_ADDR $MASTER_PORT $*" >> "ran-$1"; '
        '[ "$1" = follow ] && exec sleep 60; exit "$CODE"',
    }
    for name, script in scripts.items():
        (tmp_path / ".venv/bin" / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / ".venv/bin" / name).chmod(0o755)
    slurm = {"SLURM_SUBMIT_DIR": ".", "SLURM_JOB_ID": "41234", "SLURM_JOB_NODELIST": "n[1-3]"}
    environment = {"PATH": "/usr/bin:/bin", "CODE": str(code), "SLURM_JOB_NUM_NODES": str(nodes), **slurm}
    script = DEPLOY / "slurm/nodes.sbatch"
    words = ["bash", str(script), "bash", "-c", 'sleep 0.5; exec geozero sft --params "a b.yaml"']
    done = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert done.returncode == code, done.stderr
    assert (tmp_path / "ran-sft").read_text() == "0 n1 21234 sft --params a b.yaml\n"
    followed = tmp_path / "ran-follow"
    assert followed.exists() == (nodes > 1)
    if nodes > 1:
        assert followed.read_text() == "2 n1 21234 follow --params params.yaml\n"
    asked = sorted(file.read_text().split() for file in tmp_path.glob("srun-*"))
    first = ["--nodes=1", "--ntasks=1", "--nodelist=n1"]
    others = [[f"--nodes={nodes - 1}", f"--ntasks={nodes - 1}", "--exclude=n1"]] if nodes > 1 else []
    assert asked == sorted([first, *others])
    bare = subprocess.run(["bash", str(script)], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert bare.returncode != 0 and "give the command of the first node" in bare.stderr


def test_the_slurm_script_passes_a_signal_on_and_waits_for_the_worker(tmp_path: Path) -> None:
    (tmp_path / ".venv/bin").mkdir(parents=True)
    worker = tmp_path / ".venv/bin/prefect"
    worker.write_text(
        "#!/bin/bash\ntrap 'sleep 0.3; echo left > left; exit 0' TERM\necho ready > ready\n"
        "while :; do sleep 0.05; done\n"
    )
    worker.chmod(0o755)
    environment = {
        "PATH": "/usr/bin:/bin",
        "PREFECT_API_URL": "x",
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": "7",
    }
    job = subprocess.Popen(["bash", str(DEPLOY / "slurm/worker.sbatch")], env=environment, cwd=tmp_path)
    for _ in range(400):
        if (tmp_path / "ready").exists():
            break
        try:
            job.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
    job.terminate()
    job.wait(20)
    assert (tmp_path / "left").read_text() == "left\n"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_second_container_finds_what_the_first_one_made(tmp_path: Path) -> None:
    """Mount namespaces stand for containers: each has the image's files, and the composition's mounts over them."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    host = checkout(tmp_path / "host/geozero", settings())
    mounts = [volume for volume in SERVICES["worker"]["volumes"] if volume.endswith(":/geozero")]
    assert mounts == [CHECKOUT] == [v for v in SERVICES["gpu-worker"]["volumes"] if v.endswith(":/geozero")]
    ran = []
    for number in range(2):
        image = checkout(tmp_path / f"image-{number}", settings())
        place = tmp_path / "geozero"
        place.mkdir(exist_ok=True)
        enter = f"mount --bind '{image}' '{place}' && mount --bind '{host}' '{place}' && cd '{place}'"
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        words = ["unshare", "--mount", "sh", "-ec", f"{enter} && '{sys.executable}' -m dvc repro ingest_samples@neon"]
        environment = {
            **os.environ,
            "PATH": path,
            "PYTHONPATH": str(place),
            "DVC_SITE_CACHE_DIR": str(tmp_path / "site"),
        }
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        ran.append(sum(line.startswith("Running stage") for line in done.stdout.splitlines()))
    assert ran == [2, 0]
    assert not (tmp_path / "image-1/data/corpus").exists() and (host / "data/corpus/neon/manifest.json").is_file()
