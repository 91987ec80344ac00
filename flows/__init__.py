"""Prefect flows: each reads top-down as the recipe, its tasks call functions of `geozero` and nothing else."""

import os

from geozero.common.process import QUIET_AND_OFFLINE

# A flow without a server starts one for itself; Prefect gives it 20 seconds, which a busy machine does not keep.
PATIENT = {"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180"}

for _name, _value in (QUIET_AND_OFFLINE | PATIENT).items():  # before anything imports Prefect, from whatever directory
    os.environ.setdefault(_name, _value)
