"""The parts of the local stack: four services, which supervisord.conf starts, and the environment they need."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from geozero.common.process import quiet_environment

SERVER, MLFLOW = "prefect", "mlflow"
POOLS = {"cpu": 2, "gpu": 1}  # work pools, and how many of their runs a worker takes at a time
SERVICES = (SERVER, MLFLOW, *(f"worker-{pool}" for pool in POOLS))
PROCESS_TAG = "GEOZERO_STACK"  # environment variable that every process of a stack carries, its directory as the value
HEARTBEAT_SECONDS = 30  # the shortest that Prefect accepts
KEPT_DAYS = 90  # of ended runs in Prefect's database
LOOPBACK = ("127.0.0.1", "localhost", "::1")
PRIVATE = ("localhost:*", "127.*", "10.*", "192.168.*", *(f"172.{i}.*" for i in range(16, 32)))  # MLflow's own defaults
CONFIG = Path(__file__).with_name("supervisord.conf")


def checkout_name(root: Path | str) -> str:
    """How deployments name a checkout: by its directory and a hash of its path, so that clones of one name differ."""
    path = Path(root)
    directory = re.sub(r"[^\w.-]+", "-", path.name) or "root"  # one word for a shell, and what Prefect takes
    return f"{directory}-{hashlib.blake2b(os.fsencode(path), digest_size=3).hexdigest()}"


@dataclass(frozen=True)
class StackPlan:
    """Where the files of a stack are and where it listens.

    Attributes:
        root: the checkout; flows run in it, `mlflow.db` and `mlartifacts/` are in it.
        host: the address both servers listen on.
        port: of the Prefect server.
        mlflow_port: of the MLflow server.
        pools: the work pools that get a worker here.
        config: supervisord's configuration.
    """

    root: Path
    host: str = "127.0.0.1"
    port: int = 4200
    mlflow_port: int = 5000
    pools: tuple[str, ...] = tuple(POOLS)
    config: Path = CONFIG

    @property
    def directory(self) -> Path:
        """Logs and state."""
        return self.root / ".geozero" / "stack"

    @property
    def services(self) -> tuple[str, ...]:
        """The services that run here."""
        return SERVER, MLFLOW, *(f"worker-{pool}" for pool in self.pools)

    @property
    def prefect_address(self) -> str:
        return f"http://{self._reached}:{self.port}"

    @property
    def mlflow_address(self) -> str:
        return f"http://{self._reached}:{self.mlflow_port}"

    @property
    def _reached(self) -> str:
        return "127.0.0.1" if self.host == "0.0.0.0" else self.host

    def address(self, service: str) -> str:
        """The address of a service; of a worker, its page in Prefect."""
        if service == MLFLOW:
            return self.mlflow_address
        pool = service.removeprefix("worker-")
        return self.prefect_address + (f"/work-pools/work-pool/{pool}" if pool != service else "")

    def log(self, service: str) -> Path:
        return self.directory / f"{service}.log"

    def environment(self) -> dict[str, str]:
        """For every service: this Prefect and no other, all telemetry off, this environment's commands found first."""
        return quiet_environment(
            {
                PROCESS_TAG: str(self.directory),
                "GEOZERO_ROOT": str(self.root),
                "GEOZERO_ARTIFACTS": (self.root / "mlartifacts").as_uri(),
                "GEOZERO_PYTHON": sys.executable,
                "GEOZERO_HOST": self.host,
                "GEOZERO_PREFECT_PORT": str(self.port),
                "GEOZERO_MLFLOW_PORT": str(self.mlflow_port),
                "GEOZERO_PREFECT_UI": self.prefect_address,
                "GEOZERO_MLFLOW_UI": self.mlflow_address,
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
                "PREFECT_HOME": str(self.root / ".geozero" / "prefect"),  # its database, so that runs survive a restart
                "PREFECT_API_URL": f"{self.prefect_address}/api",
                "PREFECT_SERVER_UI_API_URL": "/api",  # by default its pages use port 4200 whatever the port is
                "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
                "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",  # an unreachable server is an error, not another server
                # kept in memory, as by default, a restart of the server would end every run that holds a limit
                "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
                # runs, their logs and artifacts are removed after 90 days, heartbeats after one; MLflow keeps its own
                "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
                "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(KEPT_DAYS * 86_400),
                "PREFECT_SERVER_SERVICES_DB_VACUUM_EVENT_RETENTION_OVERRIDES": '{"prefect.flow-run.heartbeat": 86400}',
                **self._allowed_names(),
            }
        )

    def _allowed_names(self) -> dict[str, str]:
        """The host names that MLflow accepts; by default it refuses this machine's own name."""
        if self.host in LOOPBACK:
            return {}
        names = dict.fromkeys((self.host, socket.gethostname(), socket.getfqdn()))
        hosts = [*(f"{name}:{self.mlflow_port}" for name in names), *PRIVATE]
        origins = [f"http://{host}" for host in hosts]
        return {"MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(hosts), "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(origins)}
