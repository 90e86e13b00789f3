"""What a way of keeping pixels must offer.

A backend keeps the arrays of one (run, stream, data key) as one asset and gives them back in pieces. It knows
files and formats; it knows nothing of documents, runs or the index. The suite in ``gently_bluesky.testing``
checks everything said here.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from numpy.typing import NDArray

from gently_bluesky.errors import InvalidSetting
from gently_bluesky.files import remove_tree, storage_error
from gently_bluesky.lazy import ArraySource
from gently_bluesky.model import ArraySpec
from gently_bluesky.settings import Packing

if TYPE_CHECKING:
    from gently_bluesky.backends.inspecting import Fault

__all__ = [
    "DEFAULT_PACKING",
    "Backend",
    "Capabilities",
    "Pending",
    "Sink",
]


class Pending(Protocol):
    """A write under way. ``concurrent.futures.Future`` and TensorStore's futures both are this."""

    def done(self) -> bool:
        """Say whether the write has ended, well or badly."""
        ...

    def result(self) -> object:
        """Wait for the write; afterwards the frame is *synced* and its buffer may be used again.

        An asset whose ``resource_kwargs["sync"]`` is not ``"event"`` gives *stored* only.

        Raises
        ------
        OSError
            The frame is not stored. ``errno`` says why where the system said so.
        """
        ...

    def add_done_callback(self, fn: Callable[[Any], object], /) -> object:
        """Call ``fn`` with this object, on any thread, once the write has ended."""
        ...


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can keep; the conformance suite tests what is declared.

    Attributes
    ----------
    kinds
        numpy dtype kinds: ``b i u f c``.
    max_ndim
        Most axes of one event's array.
    live
        Outside readers may look while it is written, and see only published events.
    ome
        Image data carries OME metadata.
    partial_reads
        A plane of a volume costs about a plane.
    checksums
        A changed byte in the pixels is an error when they are read. Without, only files of the wrong size or
        structure are found out here, and it takes ``verify`` and the journal's digests to find the rest.
    """

    kinds: str = "biufc"
    max_ndim: int = 5
    live: bool = True
    ome: bool = False
    partial_reads: bool = True
    checksums: bool = False


DEFAULT_PACKING = Packing()


class Sink(ABC):
    """One asset being written. Used by one thread at a time; several writes may be under way.

    Nothing is appended: each frame goes to the index it is given, and writing an index again replaces the
    frame.
    """

    @property
    @abstractmethod
    def resource_kwargs(self) -> Mapping[str, Any]:
        """What ``Backend.open`` needs beside the path to open this asset again, of JSON types only."""

    @abstractmethod
    def write(self, index: int, frame: NDArray[Any], time: float) -> Pending:
        """Begin to store one event's array at ``index``.

        Parameters
        ----------
        index
            Zero-based place along the event axis.
        frame
            C-contiguous, little-endian, of the spec's shape and dtype. It is not copied: it must stay as it
            is until the returned ``Pending`` has a result.
        time
            Seconds since the epoch at which the event happened, for the asset's own metadata.

        Raises
        ------
        FrameMismatch
            The frame is not what the spec says.
        OSError
            The write could not even begin; the frame is not stored.
        """

    @abstractmethod
    def publish(self, count: int) -> None:
        """Let outside readers see the events 0 ... count - 1, all of which are stored.

        Synced on return where frames are.

        Raises
        ------
        InputError
            One of them was never written, or more are published already; nothing changes.
        OSError
            One of them is not stored, or they could not be published; readers see what they saw before.
        """

    @abstractmethod
    def close(self) -> None:
        """Finish the metadata and let go of everything open, after the writes under way have ended.

        Idempotent; also called after a failure. How a write ended is its ``Pending``'s to say.

        Raises
        ------
        OSError
            The metadata could not be finished. Everything is let go of all the same; published events are
            safe.
        """

    # Doing nothing is right where what is written is synced at once, or never.
    def sync(self) -> None:  # noqa: B027
        """Sync all that is published and is not synced yet, metadata, folders and the asset's own entry too.

        Called with ``sync="run"`` before the run's end is announced: after `close`, and before it where the
        run has failed; with other ways of syncing it does nothing, nor where nothing has changed since it was called.

        Raises
        ------
        OSError
            Something could not be synced: a loss of power may take any of it.
        """


class Backend(ABC):
    """A way of keeping pixels. Instances hold no state."""

    name: ClassVar[str]
    """What ``store.writer(format=...)`` calls it."""
    spec: ClassVar[str]
    """What resource documents call it; upper case."""
    suffix: ClassVar[str]
    """Ending of the asset's file or folder name, e.g. ``".ome.zarr"``; may be empty."""
    mimetype: ClassVar[str | None] = None
    """What stream_resource documents call it; None where they cannot name its assets."""
    part: ClassVar[str] = ""
    """What the uri of a stream_resource names: a path below the asset's own; empty for all of it."""
    capabilities: ClassVar[Capabilities]

    # Refusing is right for a backend that packs in one way only.
    def check_packing(self, packing: Packing) -> None:
        """Refuse what this backend cannot do, before anything is written.

        Raises
        ------
        InvalidSetting
            It cannot cut or compress like this.
        """
        if packing != DEFAULT_PACKING:
            raise InvalidSetting(
                f"format {self.name!r} keeps arrays in one way only, got {packing}; nothing was written; "
                "leave chunks, compression and levels away, or choose format='zarr'"
            )

    # Doing nothing is right for a backend that packs in one way only.
    def check_fit(self, packing: Packing, spec: ArraySpec) -> None:  # noqa: B027
        """Refuse arrays that cannot be cut as asked for: when the first one comes, before it is accepted.

        `check_packing` has accepted the packing. On the producer's thread: quick, and without a call to the
        system.

        Raises
        ------
        InvalidSetting
            The packing does not fit arrays of this spec.
        """

    @abstractmethod
    def create(
        self,
        path: Path,
        spec: ArraySpec,
        packing: Packing = DEFAULT_PACKING,
        sample: NDArray[Any] | None = None,
        *,
        sync: str = "event",
    ) -> Sink:
        """Make a new, empty asset at ``path``, which must not exist; synced on return where frames are.

        Parameters
        ----------
        path
            Where; its parent exists.
        spec
            What one event is made of.
        packing
            How to cut and compress; `check_packing` has accepted it.
        sample
            The first event's array, for a choice that depends on what the pixels are like.
        sync
            ``"event"``: what the sink writes is synced as it is written, before anybody hears of it.
            ``"run"``: it is synced by `Sink.sync`, and not before. ``"never"``: it is left to the system. The
            order of the writes is the same. A backend that syncs earlier, or cannot sync at all, says so in
            ``resource_kwargs["sync"]``.

        Raises
        ------
        InvalidSetting
            The packing does not fit arrays of this spec; nothing was made.
        FileExistsError
            Something is there; it is not touched.
        OSError
            The asset cannot be made.
        """

    @abstractmethod
    def open(self, path: Path, resource_kwargs: Mapping[str, Any], count: int | None = None) -> ArraySource:
        """Open an asset as ``(t, ...)``: all events published by now. Reads no pixels. Any thread.

        Parameters
        ----------
        path
            Where it was made.
        resource_kwargs
            Of its sink, after a way through JSON. Not trusted.
        count
            Of events that are known to be published; spares counting them, however many there are. More may
            be opened.

        Raises
        ------
        AssetMissing
            Nothing is at ``path``.
        AssetDamaged
            What is there is not what ``resource_kwargs`` says.
        """

    # One chunk for each event is right unless a backend cuts them.
    def stream_parameters(self, resource_kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return what stream_resource documents say besides ``resource_kwargs``, to readers who know no spec.

        That is ``chunk_shape``, the lengths of what is read at once with the event axis in front, and
        ``join_method``.
        """
        return {"chunk_shape": [1, *resource_kwargs["frame_shape"]], "join_method": "stack"}

    @abstractmethod
    def inspect(self, path: Path, resource_kwargs: Mapping[str, Any], count: int) -> Iterable[Fault]:
        """Look for files that are missing, torn, unreadable or nobody's; yield one fault for each of them.

        Sizes, headers and tables of contents are looked at, pixels are not read. What a dead writer leaves half
        written, for `recover` to sweep, is no fault; what it has stored beyond ``count`` is foreign. Nothing is
        changed and nothing raised, whatever is found. Of an asset that is being written the answer is worth
        nothing.

        Parameters
        ----------
        path
            Where it was made.
        resource_kwargs
            Of its sink, after a way through JSON. Not trusted.
        count
            Of events that were announced.
        """

    # Doing nothing is right where assets are always whole.
    def recover(self, path: Path, resource_kwargs: Mapping[str, Any], count: int) -> None:  # noqa: B027
        """After the death of a writer: publish exactly ``count`` events and sweep what it left half done.

        Events that were announced are not touched; stored ones beyond ``count`` need not be kept: the caller
        has put away what `inspect` names. Doing it again changes nothing. Synced on return. A backend whose
        assets are always whole need not override this.

        Raises
        ------
        AssetMissing
            Nothing is at ``path``.
        AssetDamaged
            What is there is not what ``resource_kwargs`` says; it is not changed.
        OSError
            The asset cannot be changed.
        """

    def files(self, path: Path, resource_kwargs: Mapping[str, Any]) -> Sequence[Path]:  # noqa: ARG002
        """Return every file that an asset consists of, wherever it lies; none where there is no asset.

        Raises
        ------
        OSError
            They cannot be listed.
        """
        if not path.is_dir():
            return [path] if path.is_file() else []
        return sorted(Path(folder, name) for folder, _, names in os.walk(path) for name in names)

    def remove(self, path: Path, resource_kwargs: Mapping[str, Any]) -> None:  # noqa: ARG002
        """Remove an asset that nobody writes any more, with all of its pixels, wherever they lie.

        Links are removed and never followed. Where there is nothing, or half of an asset, or something else,
        what there is goes; doing it again changes nothing. Synced on return. A backend that keeps everything
        at ``path`` need not override this.

        Parameters
        ----------
        path
            Where it was made.
        resource_kwargs
            As for ``open``; empty for an asset that was never announced.

        Raises
        ------
        OSError
            Something of it could not be removed; call it again.
        """
        try:
            remove_tree(path)
        except OSError as error:
            raise storage_error(error, f"{path} could not be removed") from error
