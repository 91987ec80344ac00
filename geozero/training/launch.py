"""The process that trains: `python -m geozero.training.launch sft|grpo|export ARGS…`, ms-swift's own arguments.

It prepares the process before anything imports transformers, registers what is ours (template, lazy images, rewards,
trainer) and hands over to ms-swift. `stage.py` starts it, under torchrun where there are several devices.
"""

from __future__ import annotations

import sys

from geozero import process
from geozero.errors import InputError

KINDS = ("sft", "grpo", "export")


def main(argv: list[str]) -> int:
    """Run one ms-swift pipeline; the exit code is 2 for arguments that A²GRPO refuses."""
    if not argv or argv[0] not in KINDS:
        print(f"usage: python -m geozero.training.launch {'|'.join(KINDS)} ARGS…", file=sys.stderr)
        return 2
    kind, arguments = argv[0], argv[1:]
    process.prepare()
    try:
        _run(kind, arguments)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(kind: str, arguments: list[str]) -> None:
    from geozero.engines import template
    from geozero.training import data

    template.register()
    data.install()
    if kind == "grpo":
        from geozero.training import a2grpo

        a2grpo.main(arguments)
    elif kind == "sft":
        from swift.pipelines import sft_main

        sft_main(arguments)
    else:
        from swift.pipelines import export_main

        export_main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
