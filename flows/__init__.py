"""Prefect flows: each reads top-down as the recipe, its tasks call functions of `geozero` and nothing else."""

import os

from geozero.common.process import QUIET_AND_OFFLINE

# A flow without a server starts one for itself. Prefect allows 20 seconds, which is too short on a busy machine.
PATIENT = {"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180"}

for _name, _value in (QUIET_AND_OFFLINE | PATIENT).items():  # before any import of Prefect
    os.environ.setdefault(_name, _value)
