"""YAML in which no key stands twice: PyYAML would keep the last one and say nothing."""

from __future__ import annotations

from typing import Any

import yaml


class _UniqueLoader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[tuple[str, str], yaml.Node] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            name = (key.tag, key.value)
            if name in seen:
                what = f"the key '{key.value}' stands twice, first in line {seen[name].start_mark.line + 1}"
                raise yaml.constructor.ConstructorError(None, None, what, key.start_mark)
            seen[name] = key
        return super().construct_mapping(node, deep)


def safe_load(text: str | bytes) -> Any:
    """As `yaml.safe_load`.

    Raises:
        yaml.YAMLError: no YAML, nested too deeply, or a key stands twice in one mapping.
    """
    try:
        return yaml.load(text, _UniqueLoader)  # a SafeLoader
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    except ValueError as error:  # a number or a date that Python cannot hold
        raise yaml.YAMLError(str(error).partition(";")[0]) from None
