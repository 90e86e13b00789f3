"""The journal gives back what went in, to the bit, and a failed append leaves no trace."""

from __future__ import annotations

import errno
import json
import math
import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gently_bluesky.documents.journal import Journal, encode_line, read_journal, scan_journal
from gently_bluesky.errors import InvalidDocument, JournalDamaged, StorageError
from gently_bluesky.jsontext import decode, digest_of, encode, plain
from gently_bluesky.model import JournalLine

ANY_TEXT = st.text(st.characters(exclude_categories=()))
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT
VALUES: st.SearchStrategy[Any] = st.deferred(
    lambda: LEAVES | st.lists(VALUES, max_size=3) | st.dictionaries(ANY_TEXT, VALUES, max_size=3)
)
EVENT = JournalLine("event", {"uid": "e", "data": {"x": 1}}, {"x": "crc32c:00000000"})


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are of one type and equal, NaN to NaN, -0.0 not to 0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        if math.isnan(one):
            return math.isnan(other)
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return one == other


@given(VALUES)
@settings(deadline=None, max_examples=400)
def test_any_value_comes_back_as_it_went_in(value: Any) -> None:
    line = encode(value)
    assert b"\n" not in line
    assert same(decode(line), value)


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        [float("inf"), -float("inf"), -0.0, 5e-324, 1.7976931348623157e308],
        2**63,
        2**64 - 1,
        2**64,
        -(2**63) - 1,
        [10**400],
        {"null": None, "nan": float("nan")},
        "null",
        "\ud800 a lone surrogate",
        "line\nbreak \u2028 \0 ü 漢 🙂",
        {"": {"ä": []}},
        0.1 + 0.2,
        "1234567890123456789012345",
    ],
)
def test_values_that_strict_json_has_trouble_with_come_back(value: Any) -> None:
    assert same(decode(encode(value)), value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(0.1), 0.1),
        (np.float64("nan"), float("nan")),
        (np.float32(0.5), 0.5),
        (np.int64(-3), -3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (np.arange(6).reshape(2, 3), [[0, 1, 2], [3, 4, 5]]),
        (np.arange(6).reshape(2, 3).T, [[0, 3], [1, 4], [2, 5]]),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([1.0, float("nan")]), [1.0, float("nan")]),
        (np.array(7), 7),
        ((1, (2, 3)), [1, [2, 3]]),
    ],
)
def test_numpy_s_values_become_those_of_json(value: Any, expected: Any) -> None:
    assert same(decode(encode(value)), expected)
    assert same(plain(value), expected)
    assert same(decode(encode({"a": [value, None]})), {"a": [expected, None]})


@pytest.mark.parametrize("value", [object(), b"bytes", {1, 2}, 1j, np.array([1j]), {"a": {"b": object()}}])
def test_values_that_are_not_json_are_refused(value: Any) -> None:
    with pytest.raises(InvalidDocument, match="it was not stored"):
        encode(value)


def test_value_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(InvalidDocument, match="cannot be written"):
        encode(value)


def test_plain_copy_shares_nothing_with_its_original() -> None:
    original = {"a": [1, {"b": 2}]}
    copy = plain(original)
    original["a"][1]["b"] = 3
    assert copy == {"a": [1, {"b": 2}]}


@given(VALUES)
@settings(deadline=None)
def test_digest_is_equal_for_equal_values_and_does_not_mind_their_order(value: Any) -> None:
    assert digest_of(value) == digest_of(decode(encode(value)))
    assert digest_of({"a": value, "b": 1}) == digest_of({"b": 1, "a": value})
    assert digest_of({"a": value}) != digest_of({"b": value})


# -- the file ------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.sampled_from(["event", "datum"]), st.dictionaries(ANY_TEXT, VALUES)), max_size=6)
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lines_come_back_in_order_with_the_offsets_behind_them(
    tmp_path: Path, documents: list[tuple[str, dict[str, Any]]]
) -> None:
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
    journal = Journal(path)
    ends = [journal.append([encode_line(JournalLine(name, doc))])[1] for name, doc in documents]
    journal.close()
    found = list(scan_journal(path))
    assert [end for _, end in found] == ends
    assert all(
        same([line.name, dict(line.doc)], list(document))
        for (line, _), document in zip(found, documents, strict=True)
    )
    for end in ends:
        assert len(list(read_journal(path, end))) == len(ends) - ends.index(end) - 1


def test_digest_and_outcome_stand_in_the_envelope(tmp_path: Path) -> None:
    stop = JournalLine("stop", {"uid": "s"}, outcome={"status": "complete", "received": 1})
    journal = Journal(tmp_path / "a")
    journal.append([encode_line(EVENT), encode_line(stop)])
    journal.close()
    assert list(read_journal(tmp_path / "a")) == [EVENT, stop]
    first = json.loads((tmp_path / "a").read_text().splitlines()[0])
    assert first.pop("crc32c")
    assert first == {"name": "event", "doc": dict(EVENT.doc), "digest": dict(EVENT.digest)}


def test_a_flipped_bit_of_a_line_is_never_taken_for_what_it_says(tmp_path: Path) -> None:
    """The name of the checksum's own member apart, without which the line is believed: it says what it said."""
    lines = [encode_line(JournalLine("datum", {"datum_kwargs": {"point_number": n}})) for n in range(3)]
    path = tmp_path / "a"
    noticed = 0
    for place in range(8 * len(lines[0])):
        spoilt = bytearray(lines[0])
        spoilt[place // 8] ^= 1 << place % 8
        path.write_bytes(spoilt + lines[1] + lines[2])
        try:
            assert [line.doc["datum_kwargs"]["point_number"] for line in read_journal(path)] == [0, 1, 2]
        except JournalDamaged:
            noticed += 1
    assert noticed > 7 * len(lines[0])


def test_a_line_changed_on_purpose_is_believed_without_its_checksum(tmp_path: Path) -> None:
    line = encode_line(EVENT)
    (tmp_path / "a").write_bytes(line.replace(b'"x":1', b'"x":2') + line)
    with pytest.raises(JournalDamaged, match="take it away if the line was changed on purpose"):
        list(read_journal(tmp_path / "a"))
    whole = line[: line.rindex(b',"crc32c"')] + b"}\n"
    (tmp_path / "a").write_bytes(whole + line)
    assert list(read_journal(tmp_path / "a")) == [EVENT, EVENT]


def test_journal_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        Journal(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"mine"


@given(st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_journal_torn_at_any_byte_gives_its_whole_lines(tmp_path: Path, data: st.DataObject) -> None:
    whole = b"".join(encode_line(JournalLine("event", {"n": n, "text": "ü\n"})) for n in range(5))
    cut = data.draw(st.integers(0, len(whole)))
    tail = data.draw(st.binary(max_size=9).filter(lambda tail: b"\n" not in tail))
    path = tmp_path / "a"
    path.write_bytes(whole[:cut] + tail)
    numbers = [line.doc["n"] for line in read_journal(path)]
    kept = whole[:cut].count(b"\n")
    assert numbers == list(range(kept)) or (numbers == list(range(kept + 1)) and whole[cut:] == b"\n")


@pytest.mark.parametrize(
    ("damaged", "place"),
    [
        (b"", 2),
        (b"{}", 2),
        (b"[1]", 2),
        (b'{"name": 3, "doc": {}}', 2),
        (b'{"name": "event", "doc": 3}', 2),
        (b'{"name": "event", "doc": {"n": 1}', 2),
        (b"\xff\xfe", 2),
        (b"\0" * 100, 2),
        (b"[" * 100_000, 2),
    ],
)
def test_damage_in_the_middle_is_refused_with_its_place(tmp_path: Path, damaged: bytes, place: int) -> None:
    good = encode_line(EVENT)
    path = tmp_path / "a"
    path.write_bytes(good + damaged + b"\n" + good)
    lines = read_journal(path)
    assert next(lines) == EVENT
    with pytest.raises(JournalDamaged, match=f"line {place} is not a document") as raised:
        next(lines)
    assert str(path) in str(raised.value)


def numbered(*numbers: int) -> list[bytes]:
    return [encode_line(JournalLine("event", {"n": n, "text": 200 * "x"})) for n in numbers]


def lost(path: Path, number: int, at: int = 0) -> None:
    """Put zeros where a line was, from a byte of it on: its sector had not been written when power was lost."""
    lines = path.read_bytes().splitlines(keepends=True)
    lines[number] = lines[number][:at] + bytes(len(lines[number]) - at)
    path.write_bytes(b"".join(lines))


@pytest.mark.parametrize("at", [0, 1, 40])
def test_of_what_was_appended_last_any_part_may_be_lost_and_of_nothing_before(
    tmp_path: Path, at: int
) -> None:
    path = tmp_path / "a"
    journal = Journal(path)
    for numbers in ((0,), (1, 2, 3), (4, 5, 6)):
        journal.append(numbered(*numbers))
    journal.close()
    whole = path.read_bytes()
    for number in range(7):
        path.write_bytes(whole)
        lost(path, number, at)
        if number >= 4:
            assert [line.doc["n"] for line in read_journal(path)] == list(range(number))
        else:
            with pytest.raises(JournalDamaged, match=f"line {number + 1} is not a document"):
                list(read_journal(path))


def test_whoever_reads_on_from_the_middle_tells_torn_from_damaged_as_from_the_beginning(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a"
    journal = Journal(path)
    _, middle = journal.append(numbered(0))
    journal.append(numbered(1, 2, 3))
    journal.close()
    whole = path.read_bytes()
    lost(path, 1)
    assert list(read_journal(path, middle)) == list(read_journal(path))[1:] == []
    path.write_bytes(whole + b" " + numbered(4)[0])
    lost(path, 1)
    with pytest.raises(JournalDamaged, match="line 2 is not a document"):
        list(read_journal(path, middle))


def test_first_append_may_be_lost_too(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a")
    journal.append(numbered(0, 1, 2))
    journal.close()
    lost(tmp_path / "a", 0)
    assert list(read_journal(tmp_path / "a")) == []


@pytest.mark.parametrize("sync", [True, False])
def test_lines_that_were_never_synced_may_be_lost_until_something_says_they_are_not(
    tmp_path: Path, sync: bool
) -> None:
    path = tmp_path / "a"
    journal = Journal(path)
    journal.append(numbered(0), sync=sync, is_edge=True)
    for number in (1, 2, 3):
        journal.append(numbered(number), sync=False)
    whole = path.read_bytes()
    lost(path, 2)
    assert [line.doc["n"] for line in read_journal(path)] == [0, 1]
    path.write_bytes(whole)
    journal.append(numbered(4), sync=sync, is_edge=True)
    journal.close()
    lost(path, 2)
    with pytest.raises(JournalDamaged, match="line 3 is not a document"):
        list(read_journal(path))


def limited(to: int) -> tuple[int, int]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (to, limits[1]))
    return limits


def test_append_that_fails_leaves_the_file_as_it_was_and_the_next_one_succeeds(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a")
    line = encode_line(EVENT)
    journal.append([line])
    limits = limited(len(line) + 10)
    kept = b" " + line
    try:
        with pytest.raises(StorageError, match="2 documents could not be recorded") as raised:
            journal.append([line, line])
        assert (tmp_path / "a").read_bytes() == kept
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised.value.errno == errno.EFBIG
    assert journal.append([line]) == (len(kept), 2 * len(kept))
    journal.close()
    assert (tmp_path / "a").read_bytes() == kept * 2


def test_nothing_is_appended_behind_a_torn_tail_that_cannot_be_cut(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a")
    line = encode_line(EVENT)
    journal.append([line])
    fd = os.dup(journal._fd)
    read_only = os.open(tmp_path / "a", os.O_RDONLY)
    os.dup2(read_only, journal._fd)  # as if the disk had turned read-only
    for _ in range(2):
        with pytest.raises(StorageError, match="could not be recorded"):
            journal.append([line])
    os.pwrite(fd, b' {"name":"ev', len(line) + 1)  # what got through of the append that failed
    os.dup2(fd, journal._fd)
    for open_one in (fd, read_only):
        os.close(open_one)
    assert journal.append([line])[1] == 2 * len(b" " + line)
    journal.close()
    assert (tmp_path / "a").read_bytes() == (b" " + line) * 2


def test_lines_appended_to_a_file_that_was_removed_are_not_recorded_and_nothing_of_them_is_left(
    tmp_path: Path,
) -> None:
    path, line = tmp_path / "a", encode_line(EVENT)
    journal = Journal(path)
    journal.append([line])
    path.rename(tmp_path / "elsewhere")
    for _ in range(2):
        with pytest.raises(
            StorageError, match="2 documents could not be recorded: the file is gone"
        ) as caught:
            journal.append([line, line])
        assert caught.value.errno == errno.ENOENT
        path.write_bytes(b"")  # another one of its name is not it
    (tmp_path / "elsewhere").rename(path)
    assert path.read_bytes() == b" " + line
    journal.append([line])
    journal.close()
    assert path.read_bytes() == 2 * (b" " + line)


def test_journal_that_is_locked_is_refused_to_others_and_closing_it_twice_is_fine(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a", lock=True)
    with pytest.raises(JournalDamaged, match="is being written by another process"):
        Journal(tmp_path / "a", lock=True, existing=True)
    journal.close()
    journal.close()
    again = Journal(tmp_path / "a", lock=True, existing=True)
    assert again.append([encode_line(EVENT)]) == (0, 1 + len(encode_line(EVENT)))
    again.close()


def failing_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the next sync fail, as of a disk that could not write."""
    fsync, failures = os.fsync, [errno.EIO]

    def fail(fd: int) -> None:
        if failures:
            raise OSError(failures.pop(), "the disk could not write")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", fail)


def test_lines_whose_sync_failed_are_written_anew_where_all_before_them_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, journal = encode_line(EVENT), Journal(tmp_path / "a")
    journal.append([line])
    failing_once(monkeypatch)
    assert journal.append([line])[1] == 2 * len(b" " + line)
    journal.append([line], sync=False)
    failing_once(monkeypatch)
    with pytest.raises(StorageError, match="could not be recorded") as caught:
        journal.append([line])
    assert caught.value.errno == errno.EIO
    with pytest.raises(StorageError, match="a sync of them has failed before"):
        journal.sync()
    assert (
        journal.append([line])[1] == 4 * len(line) + 2
    )  # it does not say that what is before it is on the disk
    journal.close()
    again = Journal(tmp_path / "a", existing=True)
    failing_once(monkeypatch)
    with pytest.raises(StorageError, match="could not be recorded"):  # who knows what its writer had synced
        again.append([line])
    again.close()
    assert (tmp_path / "a").read_bytes() == b" %b %b%b%b" % (line, line, line, line)
