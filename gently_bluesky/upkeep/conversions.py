"""What is asked of a conversion, and what it came to. Frozen values; nothing here does I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gently_bluesky.backends.base import Backend
from gently_bluesky.documents.converted import MADE_FROM
from gently_bluesky.errors import InvalidSetting
from gently_bluesky.labels import bytes_text
from gently_bluesky.settings import Chunks, Compression, Packing
from gently_bluesky.wording import many, printable, short_uid

__all__ = ["Conversion", "Converted", "LeftOut", "Wish"]

CHECKSUM = "crc32c"
"""Name of the codec that our Zarr arrays have behind all others, whatever was asked for."""
MOST_NAMED = 20


@dataclass(frozen=True, slots=True)
class Wish:
    """How assets are to be kept.

    Attributes
    ----------
    backend
        None: each as it is.
    chunks, compression, levels
        As of `Packing`; None is as it is, where the format stays, else what the format does by itself.
    keep_original, keep_s
        What an asset was stays in the trash, for so many seconds at least.
    only_spec
        Leave all others as they are.

    Raises
    ------
    InvalidSetting
        Nothing is asked for, or something that no backend could take.
    """

    backend: Backend | None = None
    chunks: Chunks | None = None
    compression: Compression | None = None
    levels: int | None = None
    keep_original: bool = True
    keep_s: float = 0.0
    only_spec: str | None = None

    def __post_init__(self) -> None:
        self._packing(None)
        if self.backend is None and not self._is_packed:
            raise InvalidSetting(
                "expected a format, chunks, compression or levels to convert to, got none of them; nothing was changed"
            )
        if self.backend is not None:
            self.backend.check_packing(self._packing(None))

    def __str__(self) -> str:
        words = {name: value for name, value in self._said().items() if value is not None}
        return ", ".join(f"{name}={value}" for name, value in words.items())

    def goal(self, backend: Backend, kwargs: Mapping[str, Any]) -> tuple[Backend, Packing] | None:
        """Return how an asset is to be kept that ``backend`` keeps so; None where it is so already."""
        goal = self.backend or backend
        if goal.spec != backend.spec:
            return goal, self._packing(None)
        made_from = kwargs.get(MADE_FROM)
        last: Any = made_from[-1] if isinstance(made_from, list) and made_from else {}
        if not self._is_packed or (isinstance(last, Mapping) and last.get("asked") == self.asked(goal)):
            return None
        return goal, self._packing(kwargs.get("packing"))

    def asked(self, backend: Backend) -> dict[str, Any]:
        """Return what was asked for, of JSON types, with the name of the format that it came to."""
        return {**self._said(), "format": backend.name}

    @property
    def _is_packed(self) -> bool:
        return not (self.chunks is None and self.compression is None and self.levels is None)

    def _said(self) -> dict[str, Any]:
        def listed(value: object) -> object:
            return [*value] if isinstance(value, tuple) else value

        said = {"chunks": listed(self.chunks), "compression": listed(self.compression), "levels": self.levels}
        return {"format": None if self.backend is None else self.backend.name, **said}

    def _packing(self, known: object) -> Packing:
        """Return how to pack, as it is known to be packed where nothing else is asked for."""
        chunks, compression, levels = self.chunks, self.compression, self.levels
        if isinstance(known, Mapping):
            said: Mapping[str, Any] = known
            if chunks is None and isinstance(said.get("chunks"), list):
                chunks = tuple(said["chunks"])
            codecs = said.get("codecs")
            if compression is None and isinstance(codecs, list):
                kept = tuple(codec for codec in codecs if codec.get("name") != CHECKSUM)
                compression = kept or "none"
            levels = said.get("levels") if levels is None else levels
        return Packing(chunks, compression, 1 if levels is None else levels)


@dataclass(frozen=True, slots=True)
class Converted:
    """An asset that was converted.

    Attributes
    ----------
    uid, run_uid, data_key
        Which.
    was, became
        Names of the formats.
    events, nbytes
        How much it holds.
    file_nbytes_before, file_nbytes
        What its files took, and take.
    path
        Where it lies now, relative to the store's root.
    """

    uid: str
    run_uid: str
    data_key: str
    was: str
    became: str
    events: int
    nbytes: int
    file_nbytes_before: int
    file_nbytes: int
    path: str

    def __str__(self) -> str:
        files = f"{bytes_text(self.file_nbytes_before)} of files, now {bytes_text(self.file_nbytes)}"
        formats = f"{self.was} to {self.became}" if self.was != self.became else f"{self.was} anew"
        return f"{short_uid(self.uid)} {printable(self.data_key)}: {formats}, {many(self.events, 'event')}, {files}"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An asset, or a run, that was not converted, and why; ``is_so`` where it is kept as asked for already."""

    uid: str
    run_uid: str
    why: str
    is_so: bool = False

    def __str__(self) -> str:
        return f"{short_uid(self.uid)} {printable(self.why)}"


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a conversion came to; ``str()`` of it is for people.

    Attributes
    ----------
    converted
        Assets.
    left
        Assets that need not, or cannot, be converted, and are as they were: those that are so already, that others
        wrote, or that were deleted.
    failed
        Runs that something kept from being converted any further; what is listed of them was converted before.
    """

    converted: Sequence[Converted] = ()
    left: Sequence[LeftOut] = ()
    failed: Sequence[LeftOut] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failed

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        lists = {"converted": self.converted, "left": self.left, "failed": self.failed}
        return {"ok": self.ok, **{name: [asdict(one) for one in many_] for name, many_ in lists.items()}}

    def __str__(self) -> str:
        lines = [str(one) for one in self.converted]
        lines += [f"as it was: {one}" for one in self.left[:MOST_NAMED]]
        if len(self.left) > MOST_NAMED:
            lines.append(f"as they were: {many(len(self.left) - MOST_NAMED, 'more array')}")
        lines += [f"failed: {one}" for one in self.failed]
        nbytes = bytes_text(sum(one.nbytes for one in self.converted))
        return "\n".join([*lines, f"{many(len(self.converted), 'array')} converted, {nbytes} of pixels"])
