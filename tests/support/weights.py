"""A weight file that is whole and holds one tensor."""

from __future__ import annotations

import json
from pathlib import Path


def write_weights(path: Path, data: bytes = bytes(16)) -> None:
    """A safetensors file of one tensor with these bytes."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
