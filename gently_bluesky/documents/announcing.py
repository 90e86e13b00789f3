"""Assets being written, and the documents that announce their frames, in either family of event-model.

A frame of the family ``datum`` has a datum, which its event names. One of the family ``stream`` has a
stream_datum of its own, which names its event: of its descriptor, and by its ``seq_num``.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from gently_bluesky.backends.base import Backend, Pending, Sink
from gently_bluesky.documents.resources import file_uri
from gently_bluesky.files import PATH_SEMANTICS
from gently_bluesky.model import ArraySpec
from gently_bluesky.settings import Packing

__all__ = ["Asset"]

Named = tuple[str, dict[str, Any]]

ELSEWHERE = "-overflow"
"""In the name of an asset that goes on in a second place, so that both parts can lie side by side in the end."""


class Asset:
    """One asset: frames are placed on the thread they come on, everything else is the pipeline's.

    Without ``run_uid`` it is a device's, which knows of no run: the RunEngine puts it into the documents.

    Attributes
    ----------
    uid
        Of the resource or stream_resource document.
    nbytes
        Bytes of one frame.
    placed
        Frames that were given an index.
    announced
        Frames whose documents are in the journal; set by who announces them.
    root
        Of the store, or its second place.
    has_moved
        It goes on in another place than it began in: there it is another asset, with a uid of its own, whose first
        frame is the first one that was not announced before.
    """

    def __init__(
        self,
        backend: Backend,
        root: Path,
        path: str,
        spec: ArraySpec,
        run_uid: str | None,
        data_key: str,
        packing: Packing,
        assets: str,
        sync: str = "event",
    ) -> None:
        self.uid = str(uuid.uuid4())
        self.spec = spec
        self.nbytes = spec.nbytes
        self.placed = 0
        self.announced = 0
        self.root = root
        self.has_moved = False
        self.is_stream = assets == "stream"
        self._backend = backend
        self._path = path
        self._run = {} if run_uid is None else {"run_start": run_uid}
        self._data_key = data_key
        self._packing = packing
        self._sync = sync
        self._sink: Sink | None = None
        self._left: Sink | None = None
        self._published = self._first = self._begun = 0
        self._introduced = False

    def place(self) -> int:
        """Return the index of the next frame."""
        self.placed += 1
        return self.placed - 1

    def move(self, root: Path) -> None:
        """Go on in another root, from the first frame on that is not announced."""
        self._left, self._sink = self._sink, None
        self._first = self._published = self.announced
        self._begun = 0
        self._introduced = False
        self._path = f"{self._path.removesuffix(self._backend.suffix)}{ELSEWHERE}{self._backend.suffix}"
        self.uid, self.root, self.has_moved = str(uuid.uuid4()), root, True

    def own_index(self, index: int) -> int:
        """Return where frame ``index`` stands in what the asset is now; below 0 if it was announced elsewhere."""
        return index - self._first

    def datum_id(self, index: int) -> str:
        """Return the uid of what announces frame ``index``."""
        return f"{self.uid}/{self.own_index(index)}"

    def write(self, index: int, frame: NDArray[Any], time_s: float) -> Pending:
        """Begin to store a frame; the first one makes the asset. Raises OSError."""
        if self._sink is None:
            path = self.root / self._path
            self._sink = self._backend.create(path, self.spec, self._packing, frame, sync=self._sync)
        self._begun = max(self._begun, self.own_index(index) + 1)
        return self._sink.write(self.own_index(index), frame, time_s)

    def documents(self, index: int, event: Mapping[str, Any]) -> Iterator[Named]:
        """Yield what announces frame ``index``, of this event, once it is stored: the asset itself first."""
        if not self._introduced:
            self._introduced = True
            yield self.introduction()
        if self.is_stream:
            seq_num = event["seq_num"]
            yield self.stream_datum((index, index + 1), event["descriptor"], (seq_num, seq_num + 1))
        else:
            yield self.datum(index)

    def introduction(self) -> Named:
        """Return what announces the asset itself, once its first frame is stored."""
        kwargs = {} if self._sink is None else dict(self._sink.resource_kwargs)
        return self._stream_resource(kwargs) if self.is_stream else self._resource(kwargs)

    def _resource(self, kwargs: dict[str, Any]) -> Named:
        resource = {
            "uid": self.uid,
            "spec": self._backend.spec,
            "root": str(self.root),
            "resource_path": self._path,
            "resource_kwargs": kwargs,
            "path_semantics": PATH_SEMANTICS,
            **self._run,
        }
        return "resource", resource

    def _stream_resource(self, kwargs: dict[str, Any]) -> Named:
        parameters = {**kwargs, **self._backend.stream_parameters(kwargs), "spec": self._backend.spec}
        if self._backend.part:
            parameters["part"] = self._backend.part
        resource = {
            "uid": self.uid,
            "data_key": self._data_key,
            "mimetype": self._backend.mimetype,
            "uri": file_uri(self.root / self._path / self._backend.part, is_folder=not self._backend.part),
            "parameters": parameters,
            **self._run,
        }
        return "stream_resource", resource

    def datum(self, index: int) -> Named:
        """Return what announces frame ``index``, of an asset of the family ``datum``."""
        datum_id, index = self.datum_id(index), self.own_index(index)
        kwargs = {"point_number": index}
        return "datum", {"datum_id": datum_id, "resource": self.uid, "datum_kwargs": kwargs}

    def stream_datum(
        self, indices: tuple[int, int], descriptor: str = "", seq_nums: tuple[int, int] = (0, 0)
    ) -> Named:
        """Return what announces a range of frames, of an asset of the family ``stream``.

        Without descriptor and ``seq_nums`` it is what a device hands to the RunEngine, which fills them in.
        """
        datum = {
            "uid": self.datum_id(indices[0]),
            "stream_resource": self.uid,
            "descriptor": descriptor,
            "indices": {"start": self.own_index(indices[0]), "stop": self.own_index(indices[1])},
            "seq_nums": {"start": seq_nums[0], "stop": seq_nums[1]},
        }
        return "stream_datum", datum

    def publish(self, count: int) -> None:
        """Let outside readers see the first ``count`` frames. Raises OSError."""
        if self._sink is not None and count > self._published:
            self._sink.publish(count - self._first)
            self._published = count

    def frame_bytes(self) -> float:
        """Return how much a frame takes where it is stored, of those that were begun there. Raises OSError."""
        if self._sink is None:
            return 0.0
        files = self._backend.files(self.root / self._path, self._sink.resource_kwargs)
        return sum(file.stat().st_size for file in files) / self._begun

    def sync(self) -> None:
        """Sync what was left for the end of the run, in either place. Raises OSError."""
        for sink in (self._left, self._sink):
            if sink is not None:
                sink.sync()

    def close(self) -> None:
        """Finish the asset. Idempotent. Raises OSError."""
        if self._left is not None:
            with suppress(Exception):  # why it went on elsewhere is known; what it has announced is `sync`'s
                self._left.close()
        if self._sink is not None:
            self._sink.close()
