"""Every error this package raises on purpose, grouped by what the caller can do about it.

Each class also derives from the builtin that fits it, so that ``except OSError`` or ``except LookupError``
work as people expect, and carries a stable ``code`` for programs. Messages say what was expected, what came,
where, what happened to the data, and what to do.

This module does not decide when an error is raised, and imports nothing.
"""

from __future__ import annotations

__all__ = [
    "AmbiguousArray",
    "AmbiguousUid",
    "AssetDamaged",
    "AssetDeleted",
    "AssetDiffers",
    "AssetMissing",
    "AssetPurged",
    "AssetQuarantined",
    "ClockJumped",
    "ConflictingDocument",
    "EventsMissing",
    "FixedArray",
    "FrameMismatch",
    "GentlyError",
    "InputError",
    "InvalidDocument",
    "InvalidSetting",
    "JournalDamaged",
    "LookupFailed",
    "MessageTooLarge",
    "MissingExtra",
    "NotAStore",
    "NotYetStored",
    "PathNotAllowed",
    "Protected",
    "RunClosed",
    "RunEnded",
    "RunExists",
    "RunGoesOn",
    "StalePlan",
    "StorageError",
    "StorageFull",
    "StorageStalled",
    "StoreReadOnly",
    "StoreTooNew",
    "StoreUnusable",
    "SubscriberError",
    "UnknownReference",
    "UnknownUid",
    "UnstorableDtype",
    "WriterClosed",
]


class GentlyError(Exception):
    """Base of everything raised on purpose by gently_bluesky."""

    code = "gently"


# -- what was handed in has to change ------------------------------------------------------------------


class InputError(GentlyError, ValueError):
    """What was handed in cannot be used as it is; change it and call again."""

    code = "input"


class InvalidDocument(InputError):
    """A document is not what event-model says it must be; it was not stored."""

    code = "invalid-document"


class PathNotAllowed(InvalidDocument, PermissionError):
    """A document, or a file, names a place that may not be read; nothing was read there."""

    code = "path-not-allowed"


class ConflictingDocument(InputError):
    """A document came twice under one uid with different contents; the first one stands."""

    code = "conflicting-document"


class UnknownReference(InputError):
    """A document names a run, descriptor or resource that never came; it was not stored."""

    code = "unknown-reference"


class RunExists(InputError):
    """A run with this uid is in the store already; nothing of it was touched."""

    code = "run-exists"


class RunClosed(InputError):
    """A document came for a run that has ended; what the run holds was not touched."""

    code = "run-closed"


class FrameMismatch(InputError):
    """The frame does not fit what the stream declared; it was not stored."""

    code = "frame-mismatch"


class UnstorableDtype(InputError, TypeError):
    """The array's dtype cannot be stored as pixels; it was not stored."""

    code = "unstorable-dtype"


class MessageTooLarge(InputError):
    """A document makes a message longer than its transport carries; it was not sent."""

    code = "message-too-large"


class EventsMissing(InputError):
    """A run's stop counts events that never came; those that came are stored, and the run is incomplete."""

    code = "events-missing"


class InvalidSetting(InputError):
    """A setting is unknown or out of range; nothing was written."""

    code = "invalid-setting"


class Protected(InputError):
    """What was to be deleted is protected, as the message says; nothing was deleted."""

    code = "protected"


class StalePlan(InputError):
    """What a plan was made from has changed since; nothing was deleted. Make another plan."""

    code = "stale-plan"


class FixedArray(InputError):
    """The array stays as it is: there is nothing to wait for. Ask for the array of a run's data key."""

    code = "fixed-array"


# -- what was asked for is not there -------------------------------------------------------------------


class LookupFailed(GentlyError, LookupError):
    """What was asked for is not in the store; ask for something else."""

    code = "lookup"


class UnknownUid(LookupFailed):
    """No run, asset or datum has this uid or begins with this prefix."""

    code = "unknown-uid"


class AmbiguousUid(LookupFailed):
    """Several uids begin with this prefix; give more characters."""

    code = "ambiguous-uid"


class AmbiguousArray(LookupFailed):
    """Several arrays answer to this name; name the stream, or the asset by its uid."""

    code = "ambiguous-array"


class NotYetStored(LookupFailed, IndexError, TimeoutError):
    """It is not stored yet, or was not when the array was opened; wait for it, or ask again."""

    code = "not-yet-stored"


class RunEnded(LookupFailed):
    """The run has ended without what was waited for; it will not come any more."""

    code = "run-ended"


# -- the place where data are kept fails ---------------------------------------------------------------


class StorageError(GentlyError, OSError):
    """Reading or writing storage failed; look at the disk."""

    code = "storage"


class StorageFull(StorageError):
    """There is not enough free space; what was announced before is safe."""

    code = "storage-full"


class RunGoesOn(StorageError):
    """Storage failed, and the run goes on in the store's overflow: what ``on_failure`` is told, and nobody raises.

    What failed is its ``__cause__``.
    """

    code = "run-goes-on"


class StorageStalled(StorageError, TimeoutError):
    """Storage made no progress for longer than ``stall_timeout_s``; what was announced before is safe."""

    code = "storage-stalled"


class AssetMissing(StorageError, FileNotFoundError):
    """The files of an announced asset are not where the record says."""

    code = "asset-missing"


class AssetQuarantined(AssetMissing):
    """A file of an announced asset was put in quarantine when its run was recovered; the message says where it is."""

    code = "asset-quarantined"


class AssetDeleted(AssetMissing):
    """The pixels of an asset were deleted, and lie in the trash; `Store.restore` brings them back."""

    code = "asset-deleted"


class AssetPurged(AssetDeleted):
    """The pixels of an asset were deleted, and purged from the trash; the run's documents and a tombstone stay."""

    code = "asset-purged"


class AssetDamaged(StorageError):
    """The files of an asset are there but cannot be read as what the record says."""

    code = "asset-damaged"


class AssetDiffers(AssetDamaged):
    """The files of an asset are whole, and hold something else than the record says."""

    code = "asset-differs"


class JournalDamaged(StorageError):
    """A journal is damaged in the middle, or a recording anywhere; the file is not changed."""

    code = "journal-damaged"


# -- the store itself cannot be used this way ----------------------------------------------------------


class StoreUnusable(GentlyError):
    """The store cannot be opened, or not in this way."""

    code = "store-unusable"


class NotAStore(StoreUnusable, ValueError):
    """The root is a file, or holds something that is not a store; nothing was written."""

    code = "not-a-store"


class StoreTooNew(StoreUnusable, ValueError):
    """The store was written by a newer version of this package; nothing was written."""

    code = "store-too-new"


class StoreReadOnly(StoreUnusable, PermissionError):
    """The store is open for reading only, or its root cannot be written to; nothing was written."""

    code = "store-read-only"


class ClockJumped(StoreUnusable, RuntimeError):
    """The clock of this machine cannot be right, by what is on record; nothing was deleted."""

    code = "clock-jumped"


# -- use of something that has ended, or of somebody else's code ---------------------------------------


class WriterClosed(GentlyError, RuntimeError):
    """The writer was closed; make a new one with ``store.writer()``."""

    code = "writer-closed"


class SubscriberError(GentlyError, RuntimeError):
    """A subscriber of the writer raised; every frame was stored and announced all the same.

    Attributes
    ----------
    errors
        What the subscribers raised, oldest first.
    """

    code = "subscriber"

    def __init__(self, message: str, errors: tuple[Exception, ...] = ()) -> None:
        super().__init__(message)
        self.errors = errors


class MissingExtra(GentlyError, ImportError):
    """An optional library is not installed; the message names the extra that brings it."""

    code = "missing-extra"
