"""Prefect flows: each reads top-down as the recipe, its tasks call functions of `geozero` and nothing else."""

import os

from geozero.process import QUIET_AND_OFFLINE

for _name, _value in QUIET_AND_OFFLINE.items():  # before anything imports Prefect, from whatever directory
    os.environ.setdefault(_name, _value)
