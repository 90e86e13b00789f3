"""What children of the zygote do for the tests of this folder."""

from __future__ import annotations

from importlib import import_module

from damage import make_template, spoil_and_read
from living import write_run
from meeting import meet_claim, meet_json

__all__ = ["make_template", "meet_claim", "meet_json", "spoil_and_read", "write_run"]

for module in ("gently_bluesky.backends.tiff", "gently_bluesky.backends.zarr", "gently_bluesky.foreign.hdf5"):
    import_module(module)  # else each child would
