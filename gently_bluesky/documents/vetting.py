"""Recorded documents looked through before anybody takes them: has each a name, a uid, and what it refers to?

It looks at no pixels and at no field that replaying does not need; what takes the documents looks at the rest.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

from gently_bluesky.documents.json_forms import NAMES
from gently_bluesky.documents.recorded import Recorded
from gently_bluesky.errors import GentlyError, InputError, InvalidDocument
from gently_bluesky.model import JournalLine

__all__ = ["Vetting"]

REFERENCES: Mapping[str, tuple[str, str]] = {
    "descriptor": ("run_start", "run"),
    "stop": ("run_start", "run"),
    "event": ("descriptor", "descriptor"),
    "event_page": ("descriptor", "descriptor"),
}
"""What must have come before: where a document names it, and what it is."""
ASSETS: Mapping[str, str] = {
    "datum": "resource",
    "datum_page": "resource",
    "stream_datum": "stream_resource",
}
"""What may have come in an earlier run, from a device that was staged once for several."""
UIDS: Mapping[str, str] = {
    **dict.fromkeys(("start", "descriptor", "event", "resource", "stream_resource", "stream_datum"), "uid"),
    "datum": "datum_id",
}
MAPS: Mapping[str, tuple[str, ...]] = {"descriptor": ("data_keys",), "event": ("data",)}
"""What everybody looks into."""


class Vetting:
    """Looks through the documents of one file. What is bad is told to where they come from, and not yielded.

    Parameters
    ----------
    at
        Where they come from.
    is_strict
        Whether all that is bad is an error. If not, what refers to something bad is bad, too.
    """

    def __init__(self, at: Recorded, *, is_strict: bool) -> None:
        self._at = at
        self._is_strict = is_strict
        self._descriptors: dict[str, int] = {}
        """With their places: one that waits for its first event is sent when others were read."""
        self._assets: set[str] = set()
        self._runs: set[str] = set()
        self._came: Mapping[str, Container[str]] = {"run": self._runs, "descriptor": self._descriptors}

    def sound(self, lines: Iterable[JournalLine]) -> Iterator[JournalLine]:
        """Yield what can be followed.

        Raises
        ------
        InvalidDocument
            Something cannot, and nothing is to be passed over.
        """
        for line in lines:
            name, doc = line.name, line.doc
            try:
                is_well = (
                    name == "event" and doc["descriptor"] in self._descriptors and type(doc["data"]) is dict
                )
                if not is_well or not self._is_strict:
                    self._look_at(name, doc)
            except (KeyError, TypeError, AttributeError, _Bad) as error:
                self.refuse(line, error)
                continue
            yield line

    def refuse(self, line: JournalLine, error: Exception) -> None:
        """Tell of a document that nobody can follow, or that a store does not take.

        Raises
        ------
        InputError
            Nothing is to be passed over: an InvalidDocument, or of the kind of the error, which is raised as it is
            where it is not about the document.
        """
        if self._is_strict and isinstance(error, GentlyError) and not isinstance(error, InputError):
            raise error
        reason = str(error) if isinstance(error, _Bad | GentlyError) else f"{error!r}"
        if isinstance(error, KeyError) and not isinstance(error, GentlyError):
            reason = f"{error.args[0]!r} is missing"
        reason = (
            reason if isinstance(error, GentlyError) else f"it is no valid {line.name} document: {reason}"
        )
        kind = type(error) if isinstance(error, GentlyError) else InvalidDocument
        name = line.name if line.name in NAMES else ""
        uid = line.doc.get("uid") if name == "descriptor" else None
        number = self._descriptors.get(uid) if isinstance(uid, str) else None
        self._at.bad(reason, name=name, number=number, kind=kind, cause=error)

    def _look_at(self, name: str, doc: Mapping[str, Any]) -> None:
        if name not in NAMES:
            raise _Bad(f"event-model has no documents called {name!r:.80}")
        if name in REFERENCES:
            key, kind = REFERENCES[name]
            if doc[key] not in self._came[kind]:
                raise _Bad(f"its {kind} {doc[key]!r:.80} did not come before it")
        if not self._is_strict:
            self._look_at_assets(name, doc)
        if name in UIDS and not isinstance(doc[UIDS[name]], str):
            raise _Bad(f"its {UIDS[name]} is {doc[UIDS[name]]!r:.80}, and no text")
        for key in MAPS.get(name, ()):
            if not isinstance(doc[key], Mapping):
                raise _Bad(f"its {key} is {doc[key]!r:.80}, and no map")
        if name == "start":
            self._runs.add(doc["uid"])
        elif name == "descriptor":
            self._descriptors[doc["uid"]] = self._at.number

    def _look_at_assets(self, name: str, doc: Mapping[str, Any]) -> None:
        """Keep what assets came, and refuse what names one that was lost in this file."""
        came = self._assets
        if name in ASSETS and doc[ASSETS[name]] not in came and self._at.has_lost:
            raise _Bad(f"its {ASSETS[name]} {doc[ASSETS[name]]!r:.80} was passed over")
        if name in {"resource", "stream_resource"}:
            came.add(doc["uid"])
        elif name == "datum":
            came.add(doc["datum_id"])
        elif name == "datum_page":
            came.update(doc["datum_id"])
        elif name == "event" and self._at.has_lost:
            for key, is_filled in doc.get("filled", {}).items():
                value = doc["data"].get(key)
                if not is_filled and isinstance(value, str) and value not in came:
                    raise _Bad(f"the datum {value!r:.80} of its {key!r} was passed over")


class _Bad(Exception):
    """A document cannot be followed; says why."""
