"""Events taken apart into arrays to be stored and what they say besides, and put together with references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from gently_bluesky.documents.announcing import Asset
from gently_bluesky.documents.assets import array_to_store, declared_dtype, inline_value
from gently_bluesky.documents.tasks import DocumentTask, Frame
from gently_bluesky.errors import AssetDamaged, ConflictingDocument
from gently_bluesky.jsontext import PLAIN_TYPES

__all__ = [
    "arrays_of",
    "check_digest",
    "conflicting_event",
    "referring",
    "referring_anew",
    "said_by",
    "unnamed_timestamps",
]


def arrays_of(
    event: Mapping[str, Any], descriptor: Mapping[str, Any], assets: Mapping[str, Asset] | None
) -> dict[str, NDArray[Any]]:
    """Return an event's arrays that are stored as assets, uncopied.

    Parameters
    ----------
    event
        With the data keys of its descriptor.
    descriptor
        As it came.
    assets
        By data key; None before its first event.

    Raises
    ------
    UnstorableDtype
        One of them cannot be stored.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for key, value in event["data"].items():
        declared = descriptor["data_keys"][key]
        if declared.get("external") and isinstance(value, str):
            continue
        asset = None if assets is None else assets.get(key)
        array = array_to_store(value, declared_dtype(declared) if asset is None else asset.spec.dtype)
        if array is None:
            continue
        if assets is not None and asset is None and array.ndim == 1 and array.dtype.kind != "c":
            continue  # a list of numbers that began small and grew: it stays in the events
        arrays[key] = array
    return arrays


def said_by(event: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Return a copy of all that an event says but its stored arrays, whose keys stay.

    Raises InvalidDocument.
    """
    said: dict[str, Any] = {}
    for key, value in event.items():
        if key == "data":
            said[key] = {name: None if name in arrays else _own(one) for name, one in value.items()}
        elif key == "timestamps":
            said[key] = {name: _own(one) for name, one in value.items()}
        else:
            said[key] = _own(value)
    said["filled"] = dict(event.get("filled", {}))
    return said


def _own(value: Any) -> Any:
    return value if type(value) in PLAIN_TYPES else inline_value(value)


def referring(said: Mapping[str, Any], frames: Sequence[Frame]) -> dict[str, Any]:
    """Return the event with references in the place of its stored arrays.

    Those that stream_datum documents announce are left out: those documents name the event.
    """
    unnamed = {frame.data_key for frame in frames if frame.asset.is_stream}
    references = {
        frame.data_key: frame.asset.datum_id(frame.place) for frame in frames if not frame.asset.is_stream
    }
    filled = {**said["filled"], **dict.fromkeys(references, False)}
    data = {**said["data"], **references}
    if not unnamed:
        return {**said, "data": data, "filled": filled}
    return {
        **said,
        **{
            part: {key: value for key, value in values.items() if key not in unnamed}
            for part, values in (("data", data), ("timestamps", said["timestamps"]), ("filled", filled))
        },
    }


def referring_anew(event: Mapping[str, Any], frames: Sequence[Frame]) -> dict[str, Any]:
    """Return an event that was made by `referring` with references to where its frames are now."""
    references = {
        frame.data_key: frame.asset.datum_id(frame.place) for frame in frames if not frame.asset.is_stream
    }
    return {**event, "data": {**event["data"], **references}}


def unnamed_timestamps(said: Mapping[str, Any], frames: Sequence[Frame]) -> dict[str, float]:
    """Return the timestamps that `referring` leaves out."""
    return {frame.data_key: said["timestamps"][frame.data_key] for frame in frames if frame.asset.is_stream}


def conflicting_event(run_uid: str, uid: str) -> ConflictingDocument:
    """Return the error for an event that came again under its uid and says something else."""
    return ConflictingDocument(
        f"run {run_uid[:8]}: event {uid} came twice with different contents; the first one is stored and "
        "stands, the second was not stored; give every event a uid of its own"
    )


def check_digest(run_uid: str, task: DocumentTask) -> None:
    """Refuse an event whose pixels are not those that were recorded. Raises AssetDamaged."""
    wrong = [key for key, known in task.recorded.items() if task.digest.get(key, known) != known]
    if wrong:
        raise AssetDamaged(
            f"run {run_uid[:8]}: event {task.doc['seq_num']} came with pixels of {', '.join(wrong)} that are not "
            "those that were recorded; the event was not stored; verify where it came from"
        )
