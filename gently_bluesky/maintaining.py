"""A store as it is looked after: what keeps the files honest, between the runs that write them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gently_bluesky.backends.registry import get_backend
from gently_bluesky.documents.continued import Journals
from gently_bluesky.documents.handling import Handler
from gently_bluesky.errors import InvalidSetting, StorageError, StoreReadOnly, WriterClosed
from gently_bluesky.foreign.roots import Roots
from gently_bluesky.index.index import Index
from gently_bluesky.index.queries import seconds
from gently_bluesky.model import Record
from gently_bluesky.opening import reconcile_root
from gently_bluesky.parallel import reading_threads
from gently_bluesky.progress import terminal_bar
from gently_bluesky.reading import StoreView
from gently_bluesky.settings import Chunks, Compression, seconds_kept
from gently_bluesky.upkeep.findings import Reconciliation
from gently_bluesky.upkeep.recovery import reconcile

if TYPE_CHECKING:
    from gently_bluesky.upkeep.conversions import Conversion, Wish
    from gently_bluesky.upkeep.verification import Progress, Verification

__all__ = ["MaintainedStore"]

MOST_WORKERS = 64


class MaintainedStore(StoreView):
    """What a `Store` is to those who look after it.

    Parameters
    ----------
    root, uid, index, roots, handlers
        As of `StoreView`.
    mode
        ``"a"``, or ``"r"`` where nothing may be written.
    index_url
        Where the index is, if not in the root.
    reconciled
        What opening came to.
    overflow
        As of `StoreView`.

    Attributes
    ----------
    last_reconciliation
        What was found and done when the store was opened, or when it was last reconciled; None of a store
        that is only read.
    """

    def __init__(
        self,
        root: Path,
        uid: str,
        index: Index,
        roots: Roots,
        handlers: Mapping[str, Handler],
        mode: Literal["a", "r"],
        index_url: str | None,
        reconciled: Reconciliation | None,
        overflow: Path | None = None,
    ) -> None:
        super().__init__(root, uid, index, roots, handlers, overflow)
        self.mode = mode
        self.last_reconciliation: Reconciliation | None = reconciled
        self._index_url = index_url
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether `Store.close` was called."""
        return self._closed

    def _require_writable(self) -> None:
        if self.mode == "r":
            raise StoreReadOnly(
                f"{self.root} was opened with mode='r'; nothing was written; open it with mode='a', on a file system "
                "that can be written"
            )
        if self._closed:
            raise WriterClosed(f"the store {self.root} was closed; nothing was written; open it again")

    def reconcile(self, *, dry_run: bool = False) -> Reconciliation:
        """Recover dead runs, and compare journals, files and index; opening does it by itself. Any thread.

        Each dead run gets its end on record, with what is known of its frames; what is torn, unreadable or
        announced by nobody among its files is renamed into ``<root>/quarantine`` and put on record in
        ``<root>/upkeep.jsonl``, leftovers of half-done writes are removed, and the index is corrected. Nothing
        is renumbered and no pixels on disk are deleted. Runs that are being written are not touched, and of
        those that have ended well only the journal's length is looked at. *Synced* on return. Doing it
        again, or dying inside it, changes nothing that the next time does not put right.

        Parameters
        ----------
        dry_run
            Change nothing, the index neither, and say what would be done; allowed with ``mode="r"`` too.

        Returns
        -------
        Reconciliation
            What was found and done: ``print`` it, or ask for its ``to_dict()``.

        Raises
        ------
        StoreReadOnly
            The store is only read, and this is no ``dry_run``.
        StorageError
            The index could not be read or written.
        """
        if not dry_run:
            self._require_writable()
            self.last_reconciliation = reconcile(self.root, self._index, self.overflow)
            return self.last_reconciliation
        if self.mode == "r":
            return reconcile_root(self.root, self._index_url, self.overflow, dry_run=True)
        return reconcile(self.root, self._index, self.overflow, dry_run=True)

    def materialize(
        self,
        uid: str,
        *,
        format: str = "zarr",  # as in `writer`
        chunks: Chunks | None = None,
        compression: Compression | None = None,
        levels: int = 1,
    ) -> Record:
        """Convert what a run, or an asset, keeps in memory, and nothing else; see `convert`. Any thread.

        Parameters
        ----------
        uid
            Of a run that has ended, or of one of its assets.
        format, chunks, compression, levels
            As in `writer`; any format but ``"memory"``.

        Returns
        -------
        Record
            Of the run or asset.

        Raises
        ------
        InputError
            The run is still being written, or a setting is out of range; nothing was changed.
        GentlyError
            As `convert`.
        """
        from gently_bluesky.backends.memory import MemoryBackend  # a store brings no backend
        from gently_bluesky.upkeep.conversions import Wish

        self._require_writable()
        if format == MemoryBackend.name:
            raise InvalidSetting(
                f"expected a format that keeps pixels on disk, got {format!r}; nothing was changed"
            )
        wish = Wish(get_backend(format), chunks, compression, levels, only_spec=MemoryBackend.spec)
        self._convert(uid, wish, progress=False)
        return self._index.record(self._index.record(uid).uid)

    def convert(
        self,
        uid: str | Record | Iterable[str | Record],
        *,
        format: str | None = None,  # as in `writer`
        chunks: Chunks | None = None,
        compression: Compression | None = None,
        levels: int | None = None,
        keep_original: bool = True,
        keep_days: float = 7.0,
        progress: bool | Callable[[int, int, str], object] = True,
    ) -> Conversion:
        """Keep runs or assets in another format, cut or compressed otherwise, or with more levels. Any thread.

        Each asset is copied beside what it was, by both cores, and read back: every event is compared with the digest
        that it was announced with, before and after, or where it has none with what was read. Then the journal says
        what the asset is now, and in ``made_from`` what it was, when that was, and what was asked for; and what it was
        goes to the trash. Uids, lineage and all other documents stay as they are, and arrays that are open, here and in
        other processes, read on. *Synced* asset by asset: what is done stays done, and calling it again goes on.
        Takes memory for one event, or for small ones of 0.5 GB together.

        Assets of others, and those that were deleted, are left as they are. What is kept in memory only does not
        survive a restart of the machine, and is given back.

        Parameters
        ----------
        uid
            Of a run that has ended, or of one of its assets; or several of them, as `query` gives them.
        format
            As in `writer`; None is the one that each asset has.
        chunks, compression, levels
            As in `writer`; None is as it is where the format stays, else what the format does by itself.
        keep_original
            What each asset was stays in the trash, as a safety copy that nothing refers to; otherwise it is removed for
            good as soon as the new one was read back.
        keep_days
            `purge` leaves it there for so long.
        progress
            A bar, where standard error is a terminal; or what is called with the bytes that were copied and read back,
            of how many, and a word of what, on this thread.

        Returns
        -------
        Conversion
            ``converted``, ``left`` as they were, and ``failed``: of several runs, those that something was wrong with.
            ``str()`` of it is for people, ``to_dict()`` for programs.

        Raises
        ------
        UnknownUid, AmbiguousUid
            There is no such run or asset, or there are several; nothing was changed.
        InputError
            A run is being written; the format cannot hold an asset so; or a setting is out of range.
        AssetMissing, AssetDamaged
            The pixels are gone, or not those that were announced.
        StoreReadOnly, StorageError
            There is no room for a copy, or it could not be written. The asset is what it was then, unless the message
            says that it is converted.
        """
        from gently_bluesky.upkeep.conversions import Wish  # a store brings no backend

        self._require_writable()
        if format == "memory" and not keep_original:
            raise InvalidSetting(
                "expected keep_original=True with format='memory', whose pixels do not survive a restart of the "
                "machine; nothing was changed"
            )
        backend = None if format is None else get_backend(format)
        wish = Wish(backend, chunks, compression, levels, keep_original, seconds_kept(keep_days))
        return self._convert(uid, wish, progress=progress)

    def _convert(
        self,
        uid: str | Record | Iterable[str | Record],
        wish: Wish,
        *,
        progress: bool | Callable[[int, int, str], object],
    ) -> Conversion:
        from gently_bluesky.converting import convert, wanted_of

        wanted, is_one = wanted_of(self._index, uid)
        if callable(progress):
            return convert(self._places, self._index, wanted, wish, progress, is_one=is_one)
        with terminal_bar("Converting", wanted=progress) as tell:
            return convert(self._places, self._index, wanted, wish, tell, is_one=is_one)

    def verify(
        self,
        uid: str | Iterable[str] | None = None,
        *,
        progress: bool | Callable[[Progress], object] = True,
        workers: int | None = None,
        resume: bool = False,
        unless_verified_since: float | str | date | None = None,
        record: bool | None = None,
    ) -> Verification:
        """Read every announced event back and compare it with what was announced; changes nothing. Any thread.

        Pixels are compared with the digest that the journal took of them when they were announced, what other
        writers keep is read and looked at for its shape, and files are looked for that nobody announced. A run that
        is being written is verified as far as it was announced. What is wrong is a `Finding` of the report, and
        never raised.

        A run of which all was verified is stamped in the logbook, ``upkeep.jsonl``: *synced* a second later, and when
        the call ends, be it by Ctrl-C. Each worker takes memory for 16 MiB of
        pixels, or for one layer of chunks along the first axis of an event where that is more (of
        ``chunks="volume"`` a whole event), and what it takes to decompress them.

        Parameters
        ----------
        uid
            Of runs (a derived result is one), assets or datums, or beginnings of them; None is everything.
        progress
            A bar, where standard error is a terminal; or what is called with a `Progress`, on this thread.
        workers
            Threads that read; by default one for each core, 2 to 8.
        resume
            Go on with the last pass over everything, if that was interrupted: runs that it found well are left out
            unless their journals have changed since.
        unless_verified_since
            Leave out runs that were found well since then, in whatever pass, and whose journals have not changed
            since; as ``since`` of `query`.
        record
            Whether to stamp; by default not with ``mode="r"``.

        Returns
        -------
        Verification
            ``ok``, ``findings`` and counts; ``str()`` of it is for people, ``to_dict()`` for programs.

        Raises
        ------
        UnknownUid, AmbiguousUid
            There is no such run, asset or datum, or there are several; nothing was verified.
        InvalidSetting
            A setting is out of range; nothing was verified.
        StorageError
            The index cannot be read.
        """
        from gently_bluesky.upkeep.stamps import Stamps  # as `materialize`
        from gently_bluesky.upkeep.trash import follow
        from gently_bluesky.upkeep.verify import verify
        from gently_bluesky.verifying import opener, progress_bar, wanted_of

        if workers is not None and (isinstance(workers, bool) or not 1 <= workers <= MOST_WORKERS):
            raise InvalidSetting(
                f"workers must be a number of threads from 1 to {MOST_WORKERS}, got {workers!r}; nothing was verified"
            )
        if resume and uid is not None:
            raise InvalidSetting(
                "resume goes on with a pass over everything: leave uid away; nothing was verified"
            )
        if self.mode == "a":
            with suppress(StorageError):  # what is wrong with the logbook is a finding
                follow(self.root, self._index)
        since = unless_verified_since
        with progress_bar(progress) as tell:
            return verify(
                Journals(self.root, self.overflow),
                self._index,
                opener(self._places, self._index),
                None if uid is None else wanted_of(self._index, uid),
                Stamps(self.root, writes=self.mode == "a" if record is None else record),
                workers=workers or reading_threads(),
                resume=resume,
                since=None if since is None else seconds("unless_verified_since", since),
                tell=tell,
            )
