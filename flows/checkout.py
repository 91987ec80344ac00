"""The steps by which a deployment is made from a checkout, and by which its run enters it.

A run reports what is missing in the checkout before it loads any code. Prefect itself would only say that the run's
process ended with code 1, and leave the reason to a traceback in the log.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from prefect import get_client
from prefect.client.schemas.filters import WorkQueueFilter, WorkQueueFilterName
from prefect.exceptions import ObjectAlreadyExists
from prefect.runtime import flow_run
from prefect.states import Failed

from geozero.common.errors import InputError
from geozero.stack.services import checkout_name

IMAGE_CHECKOUT = "GEOZERO_CHECKOUT"  # environment variable, set by our images: the deployer's path is not in them


def register(directory: str, pool: str) -> dict[str, str]:
    """A deployment's build step: the checkout's name, which its deployments carry, and its queue in a work pool.

    The queue lets one run start at a time: of two trainings in one checkout the second waits on the server, and no
    machine waits with it. A queue that exists keeps its limit.
    """
    name = checkout_name(directory)
    with get_client(sync_client=True) as client:
        named = WorkQueueFilter(name=WorkQueueFilterName(any_=[name]))
        if not client.read_work_queues(pool, named):
            with suppress(ObjectAlreadyExists):
                client.create_work_queue(name, concurrency_limit=1, work_pool_name=pool)
    return {"name": name}


def enter(directory: str) -> dict[str, str]:
    """A deployment's pull step: go to the deployed checkout, in a container to that of its image (`GEOZERO_CHECKOUT`).

    Raises:
        InputError: the checkout, the flow's code or a field of the form does not exist. The run fails with this line
            as its state's message.
    """
    directory = os.environ.get(IMAGE_CHECKOUT) or directory
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(flow_run.id) if flow_run.id else None
        try:
            require_directory(Path(directory))
            if run is not None and run.deployment_id is not None:
                deployment = client.read_deployment(run.deployment_id)
                require_code(Path(directory), deployment.entrypoint or "")
                fields = (deployment.parameter_openapi_schema or {}).get("properties", {})
                require_fields(run.parameters, fields, deployment.name)
        except InputError as error:
            if run is not None:
                client.set_flow_run_state(run.id, Failed(message=str(error)), force=True)
            raise
    os.chdir(directory)
    return {"directory": directory}


def require_directory(root: Path) -> None:
    """Raises InputError if the checkout is not on this machine."""
    if not root.is_dir():
        raise InputError(
            f"the deployed checkout is not on this machine ({os.uname().nodename})",
            str(root),
            "run `prefect deploy --all` in a checkout that every worker has at the same path",
        )


def require_code(root: Path, entrypoint: str) -> None:
    """Raises InputError if the checkout lacks the flow that a deployment names as FILE:FUNCTION."""
    name, _, function = entrypoint.partition(":")
    hint = "check out the commit that has it, or deploy again: `prefect deploy --all`"
    try:
        tree = ast.parse((root / name).read_text())
    except OSError:
        raise InputError(f"no {name}, which the deployment names,", str(root), hint) from None
    except (SyntaxError, ValueError) as error:
        raise InputError(f"{name} is not Python: {error}", str(root), hint) from None
    if function not in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}:
        raise InputError(f"{name} has no flow '{function}', which the deployment names", str(root), hint)


def require_fields(given: Collection[str], fields: Collection[str], deployment: str) -> None:
    """Raises InputError for a parameter that the flow does not have; forms prevent it, commands and calls do not."""
    unknown = sorted(set(given) - set(fields))
    if unknown:
        raise InputError(f"{deployment} has no field {', '.join(unknown)}", hint=f"its fields are {', '.join(fields)}")
