"""What a device says of the arrays that it writes: to its recording, and to the RunEngine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gently_bluesky.documents.assets import EXTERNAL

__all__ = ["about_device", "external_keys"]

DataKeys = Mapping[str, Mapping[str, Any]]


def about_device(name: str, data_keys: DataKeys, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a descriptor would say of a device, with the values of its configuration."""
    return {
        "data_keys": data_keys,
        "configuration": {name: {"data": values}},
        "object_keys": {name: list(data_keys)},
    }


def external_keys(data_keys: DataKeys, family: str) -> dict[str, dict[str, Any]]:
    """Return data keys as those of arrays that documents of this family announce."""
    return {key: {**said, "external": EXTERNAL[family]} for key, said in data_keys.items()}
