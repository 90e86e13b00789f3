"""Documents made by hand, for tests: valid ones as a RunEngine composes them, to be spoilt as a test wants.

Nothing is checked here; that is the work of what is tested.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any

__all__ = ["HandMadeRun"]


class HandMadeRun:
    """The documents of one run, one call each.

    Parameters
    ----------
    uid
        Of the run; a new one by default.
    **metadata
        More for the start document.

    Examples
    --------
    >>> run = HandMadeRun("9f1c", sample="e3")
    >>> descriptor = run.descriptor(camera={})
    >>> event = run.event(descriptor, camera=[[1, 2], [3, 4]])
    >>> event["seq_num"], event["data"], run.stop()["num_events"]
    (1, {'camera': [[1, 2], [3, 4]]}, {'primary': 1})
    """

    def __init__(self, uid: str | None = None, **metadata: Any) -> None:
        self.uid = uid or str(uuid.uuid4())
        self.start: dict[str, Any] = {"uid": self.uid, "time": time.time(), **metadata}
        self.num_events: dict[str, int] = {}
        self._streams: dict[str, str] = {}

    def descriptor(self, stream: str = "primary", **data_keys: Mapping[str, Any]) -> dict[str, Any]:
        """Return a descriptor; of each data key give only what is not as a careless device says it."""
        uid = str(uuid.uuid4())
        self._streams[uid] = stream
        self.num_events.setdefault(stream, 0)
        said = {"source": "hand", "dtype": "array", "shape": list[int]()}
        return {
            "uid": uid,
            "run_start": self.uid,
            "time": time.time(),
            "name": stream,
            "data_keys": {key: {**said, **declared} for key, declared in data_keys.items()},
            "configuration": {},
            "hints": {},
            "object_keys": {"device": list(data_keys)},
        }

    def event(self, descriptor: Mapping[str, Any], seq_num: int | None = None, **data: Any) -> dict[str, Any]:
        """Return an event of this descriptor; its ``seq_num`` is the next one of the stream if not given."""
        stream = self._streams[descriptor["uid"]]
        number = self.num_events[stream] + 1 if seq_num is None else seq_num
        self.num_events[stream] = number
        now_s = time.time()
        return {
            "uid": str(uuid.uuid4()),
            "descriptor": descriptor["uid"],
            "time": now_s,
            "seq_num": number,
            "data": data,
            "timestamps": dict.fromkeys(data, now_s),
            "filled": {},
        }

    def stop(self, exit_status: str = "success") -> dict[str, Any]:
        """Return a stop document."""
        return {
            "uid": str(uuid.uuid4()),
            "run_start": self.uid,
            "time": time.time(),
            "exit_status": exit_status,
            "reason": "",
            "num_events": dict(self.num_events),
        }
