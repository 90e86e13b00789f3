"""A store as it is looked after: what keeps the files honest, between the runs that write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from gently_bluesky.backends.registry import get_backend
from gently_bluesky.documents.handling import Handler
from gently_bluesky.errors import InputError, StoreReadOnly, WriterClosed
from gently_bluesky.foreign.roots import Roots
from gently_bluesky.index.index import Index
from gently_bluesky.model import Chunks, Compression, Packing, Record
from gently_bluesky.opening import reconcile_root
from gently_bluesky.reading import StoreView
from gently_bluesky.upkeep.findings import Reconciliation
from gently_bluesky.upkeep.recovery import reconcile

__all__ = ["MaintainedStore"]


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
    ) -> None:
        super().__init__(root, uid, index, roots, handlers)
        self.mode = mode
        self.last_reconciliation: Reconciliation | None = reconciled
        self._index_url = index_url
        self._closed = False

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
            self.last_reconciliation = reconcile(self.root, self._index)
            return self.last_reconciliation
        if self.mode == "r":
            return reconcile_root(self.root, self._index_url, dry_run=True)
        return reconcile(self.root, self._index, dry_run=True)

    def materialize(
        self,
        uid: str,
        *,
        format: str = "zarr",  # as in `writer`
        chunks: Chunks | None = None,
        compression: Compression | None = None,
        levels: int = 1,
    ) -> Record:
        """Put on disk what a run, or an asset, keeps in memory; *synced* on return. Any thread.

        Every event is checked against the digest it was announced with, in memory and again in the copy, and
        the memory is given back. Uids, lineage and all that the run says stay as they are; arrays that are
        open, here and in other processes, go on from the copy. Where nothing is in memory, nothing is done.
        Takes memory for one event.

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
        UnknownUid, AmbiguousUid
            There is no such run or asset, or there are several.
        InputError
            The run is still being written, or a setting is out of range; nothing was changed.
        AssetMissing, AssetDamaged
            The pixels are gone, or not those that were announced; nothing was changed.
        StoreReadOnly, StorageError
            The copy cannot be written; nothing was changed.
        """
        from gently_bluesky.upkeep.materialize import materialize  # a store brings no backend

        self._require_writable()
        backend, packing = get_backend(format), Packing(chunks, compression, levels)
        backend.check_packing(packing)
        record = self._index.record(uid)
        if record.kind == "datum" or format == "memory":
            raise InputError(
                f"expected the uid of a run or an asset, and a format that keeps pixels on disk, got that of "
                f"the {record.kind} {record.uid} and {format!r}; nothing was changed"
            )
        materialize(self.root, self._index, record, backend, packing)
        return self._index.record(record.uid)
