"""How a run's documents are announced: into the journal, then the index, then to the subscribers.

On the pipeline's thread. It knows nothing of frames: what it is given is stored.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Sequence

from gently_bluesky.documents.continued import continuing_lines
from gently_bluesky.documents.desk import Desk
from gently_bluesky.documents.event_count import EventCount
from gently_bluesky.documents.home import RunHome
from gently_bluesky.documents.journal import encode_line
from gently_bluesky.documents.tally import Tally
from gently_bluesky.documents.tasks import DocumentTask
from gently_bluesky.errors import StorageError
from gently_bluesky.index.moving import MovingIndex
from gently_bluesky.jsontext import decode
from gently_bluesky.model import JournalLine

__all__ = ["Announcer"]

REPEATED = frozenset({"start", "descriptor", "resource", "stream_resource"})
"""What later lines may name, so that a journal which goes on elsewhere repeats it there."""


class Announcer:
    """Announces the documents of one run.

    Attributes
    ----------
    events
        Counts those that were announced.
    is_ended
        The run's stop is in the journal.
    index_failed
        What was announced last is not in the index: the failure is its, and not that of the run's place.
    subscriber_errors
        What subscribers raised, each of them once.
    remarks
        What people have to be told and no error says.
    """

    def __init__(self, run_uid: str, desk: Desk, home: RunHome, tally: Tally) -> None:
        self.events = EventCount()
        self.is_ended = False
        self.index_failed = False
        self.subscriber_errors: list[Exception] = []
        self.remarks: deque[str] = deque()
        self._run = run_uid[:8]
        self._desk = desk
        self._home = home
        self._tally = tally
        self._unwritten: list[JournalLine] = []
        self._silenced: set[int] = set()
        self._end = 0
        self._header: list[bytes] = []
        self._shift = 0
        self._repeated: list[JournalLine] = []

    @property
    def has_begun(self) -> bool:
        """Whether anything was announced in the home that it has now."""
        return self._end > 0 and not self._header

    def move(self, home: RunHome, but: Container[str] = ()) -> None:
        """Announce in another home from now on, whose journal will say that it continues this one.

        It repeats what later documents may name; ``but`` are uids of what they will not. Where nothing was announced
        yet, the run is in the new home as a whole.
        """
        if self._end:
            repeated = [line for line in self._repeated if line.doc["uid"] not in but]
            self._header = continuing_lines(self._home.journal, self._end, repeated)
        self._home = home

    def move_back(self, home: RunHome) -> None:
        """Undo `move`, after which nothing was announced."""
        self._home, self._header, self._shift = home, [], 0

    def announce(
        self,
        lines: Sequence[JournalLine],
        tasks: Sequence[DocumentTask] = (),
        *,
        last: bool = False,
    ) -> None:
        """Journal, index, subscribers; the tasks that brought the lines become announced.

        Raises
        ------
        StorageError
            The journal does not have them; with ``index_failed`` it has, and only the index does not.
        """
        new, lines = lines, [*self._unwritten, *lines]
        if self._home.whole_runs and not last:
            self._unwritten = lines
            self.events.note(new)
            return
        raw = [encode_line(line) for line in lines]
        begin, end = self._append(raw, is_edge=last or lines[0].name == "start" or bool(self._header))
        self._unwritten = []
        self.is_ended = last
        self._count(tasks)
        self.events.note(new)
        if self._desk.overflow is not None:
            self._repeated += (line for line in new if line.name in REPEATED)
        try:
            self._index(lines, end, begin, last=last)
        finally:
            self._tell(raw)  # the journal has them: they are announced, whatever became of the index

    def _append(self, raw: Sequence[bytes], *, is_edge: bool) -> tuple[int, int]:
        """Append lines; return where they begin and end, as if a journal that goes on elsewhere were one file."""
        begin, end = self._home.append([*self._header, *raw], is_edge=is_edge)
        if self._header:
            self._shift = self._end - (end - sum(map(len, raw)))
            self._header, begin = [], self._end
        else:
            begin += self._shift
        self._end = end + self._shift
        return begin, self._end

    def _count(self, tasks: Sequence[DocumentTask]) -> None:
        for task in tasks:
            task.is_announced = True
            for frame in task.frames:
                frame.asset.announced = frame.place + 1
        self._tally.announce(sum(len(task.frames) for task in tasks), sum(task.nbytes for task in tasks))
        self._home.count_stored(self._tally.announced)

    def _index(self, lines: Sequence[JournalLine], end: int, begin: int, *, last: bool) -> None:
        try:
            self._desk.feed.add(self._home.journal, lines, end, begin, last=last)
        except StorageError as error:
            self.index_failed = True
            raise type(error)(
                error.errno,
                f"run {self._run}: the index could not be written ({error}); what the journal holds is stored and "
                "announced, and the index follows it when the store is next opened",
            ) from error
        index = self._desk.index
        if isinstance(index, MovingIndex) and (why := index.news()) is not None:
            self.remarks.append(
                f"run {self._run}: {why}. The index goes on in a copy in {index.spare} that other processes do "
                "not see; they read the journals. The one in its place follows when the store is next opened"
            )

    def _tell(self, raw: Sequence[bytes]) -> None:
        """Call the subscribers, each with copies of its own.

        One that raises is not called again in this run.
        """
        for token, subscriber in list(self._desk.subscribers.items()):
            if token in self._silenced:
                continue
            try:
                for line in raw:
                    named = decode(line)
                    with self._desk.pipeline.telling():
                        subscriber(named["name"], named["doc"])
            except BaseException as error:  # noqa: BLE001 # raised at stop as SubscriberError; storage goes on
                self._silenced.add(token)
                odd = RuntimeError(f"it raised {error!r}")
                self.subscriber_errors.append(error if isinstance(error, Exception) else odd)
