"""What importing the package costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    *(
        "asyncio",
        "bluesky",
        "dask",
        "event_model",
        "importlib.metadata",
        "matplotlib",
        "numpy",
        "ophyd",
        "orjson",
    ),
    *("pandas", "rich", "sqlalchemy", "tensorstore", "tifffile", "typer", "xarray", "zarr"),
}


def modules_after(statement: str) -> set[str]:
    script = f"import sys; before = set(sys.modules)\n{statement}\nprint(*(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


def test_importing_the_package_imports_nothing_of_weight():
    modules = modules_after("import gently_bluesky")
    assert not modules.intersection(HEAVY)
    assert {name for name in modules if name.startswith("gently_bluesky")} == {"gently_bluesky"}
    assert len(modules) < 40


def test_looking_at_what_the_package_offers_imports_nothing_of_weight():
    modules = modules_after("import gently_bluesky; dir(gently_bluesky); gently_bluesky.__all__")
    assert not modules.intersection(HEAVY)


@pytest.mark.parametrize("name", ["Store", "Run", "LazyArray", "Record", "replay", "handler_registry"])
def test_a_public_name_brings_neither_a_backend_nor_bluesky(name):
    modules = modules_after(f"import gently_bluesky; gently_bluesky.{name}")
    heavy = {"bluesky", "ophyd", "tensorstore", "zarr", "tifffile", "dask", "pandas", "xarray", "matplotlib"}
    assert not modules.intersection(heavy)
    rooms = {name for name in modules if name.startswith("gently_bluesky.backends.")}
    assert rooms <= {"gently_bluesky.backends.base", "gently_bluesky.backends.registry"}


def test_a_record_or_an_array_brings_no_database():
    assert "sqlalchemy" not in modules_after("from gently_bluesky import LazyArray, Record")


def test_opening_a_store_brings_no_backend_and_no_bluesky(tmp_path):
    modules = modules_after(f"from gently_bluesky import Store; Store({str(tmp_path / 'store')!r}).close()")
    assert not modules.intersection({"bluesky", "ophyd", "tensorstore", "zarr", "tifffile"})
