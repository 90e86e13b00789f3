"""Volumes that a flyer takes by itself, one after another, beside the same volumes in event documents."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from benchmarks.frames import BankCamera, acquire, open_bank
from benchmarks.harness import Contender, Goal, Metric, Row
from benchmarks.worker import Place, Sampler

__all__ = ["row"]

SLICES = 8
FLOWN, READ = "a flyer with a recorder", "a device read by a plan"


def row(*, quick: bool) -> Row:
    """Return the row."""
    volumes = 8 if quick else 25
    return Row(
        name="flying",
        title="Volumes from a flyer to stored Zarr",
        text=(
            f"Volumes of {SLICES} camera-like planes of 2048 x 2048 uint16, as fast as they are taken: by `bp.fly`, "
            "from a flyer that writes them by itself, and by a plan that reads them, whose writer stores them. Both "
            "are one run, timed until all is synced and announced."
        ),
        metrics=(Metric("frames_per_s", "frames/s"), Metric("gb_per_s", "GB/s", 2)),
        contenders=(
            Contender(FLOWN, "flying.flown", options={"volumes": volumes}),
            Contender(READ, "flying.read", options={"volumes": volumes}),
        ),
        goals=(
            Goal(
                "a flight at a camera's full rate",
                "≥ 100 frames/s",
                "frames_per_s",
                FLOWN,
                at_least=100.0,
                unit="frames/s",
            ),
        ),
        rounds=2 if quick else 5,
    )


def _volumes(place: Place) -> NDArray[Any]:
    bank = open_bank(place.bank)
    return bank.reshape(-1, SLICES, *bank.shape[1:])


def _sampled(store: Any, run: Callable[[], object], volumes: int, nbytes: int) -> Sampler:
    def sample(_: Path) -> dict[str, Any]:
        begun_s = time.perf_counter()
        run()
        took_s = time.perf_counter() - begun_s
        for folder in ("runs", "incoming"):
            shutil.rmtree(store.root / folder, ignore_errors=True)
        return {"frames_per_s": volumes * SLICES / took_s, "gb_per_s": volumes * nbytes / took_s / 1e9}

    sample(store.root)
    return sample


@contextmanager
def flown(place: Place, volumes: int) -> Iterator[Sampler]:
    """Fly."""
    import bluesky.plans as bp
    from bluesky import RunEngine

    from gently_bluesky import Store
    from gently_bluesky.devices.flying import FliesWithDatums

    bank = _volumes(place)

    class Flyer(FliesWithDatums):
        def take(self) -> Iterator[dict[str, NDArray[Any]]]:
            return ({"volume": bank[number % len(bank)]} for number in range(volumes))

        def describe_arrays(self) -> dict[str, dict[str, Any]]:
            shape, dtype = list(bank.shape[1:]), bank.dtype.str
            said = {"source": "benchmark", "dtype": "array", "shape": shape, "dtype_numpy": dtype}
            return {"volume": said}

    with Store(place.scratch / "store") as store, store.writer() as writer:
        flyer, engine = Flyer(name="flyer", recorder=store.recorder()), RunEngine({})
        yield _sampled(store, lambda: engine(bp.fly([flyer]), writer), volumes, bank[0].nbytes)


@contextmanager
def read(place: Place, volumes: int) -> Iterator[Sampler]:
    """Read."""
    from bluesky import RunEngine

    from gently_bluesky import Store

    bank = _volumes(place)
    with Store(place.scratch / "store") as store, store.writer() as writer:
        engine = RunEngine({})
        yield _sampled(
            store,
            lambda: engine(acquire([BankCamera(bank, "volume")], volumes), writer),
            volumes,
            bank[0].nbytes,
        )
