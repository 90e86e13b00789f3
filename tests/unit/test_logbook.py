"""The logbook of upkeep: entries come back in order, whoever wrote them, and whatever was torn or damaged."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from gently_bluesky.errors import InputError, InvalidDocument, JournalDamaged, StorageError
from gently_bluesky.upkeep.logbook import Logbook


def said(logbook: Logbook, kind: str | None = None) -> list[object]:
    return [entry["n"] for entry in logbook.entries(kind)]


def test_entries_come_back_in_order_by_kind_and_with_a_time(tmp_path: Path) -> None:
    logbook = Logbook(tmp_path)
    assert list(logbook.entries()) == []
    assert not logbook.path.exists()
    logbook.append({"kind": "verified", "n": 1}, {"kind": "quarantine", "n": 2, "time": 5.0})
    Logbook(tmp_path).append({"kind": "verified", "n": 3})
    assert said(logbook) == [1, 2, 3]
    assert said(logbook, "verified") == [1, 3]
    assert [entry["time"] for entry in logbook.entries("quarantine")] == [5.0]
    assert all(entry["time"] > 1e9 for entry in logbook.entries("verified"))


@pytest.mark.parametrize(
    "tail", [b'{"kind":"ver', b'{"kind":"verified","n":9}', b"\0" * 200, b"\0\n", b"[]\n", b"x" * 200_000]
)
@pytest.mark.parametrize("before", [0, 2])
def test_torn_tail_is_left_out_and_cut_before_the_next_entry(
    tmp_path: Path, tail: bytes, before: int
) -> None:
    logbook = Logbook(tmp_path)
    for n in range(before):
        logbook.append({"kind": "verified", "n": n, "long": "x" * 70_000})
    with logbook.path.open("ab") as file:
        file.write(tail)
    assert said(logbook) == list(range(before))
    logbook.append({"kind": "verified", "n": before})
    assert said(logbook) == list(range(before + 1))
    assert logbook.path.read_bytes().count(b'"verified"') == before + 1


def test_damage_in_the_middle_is_refused_by_file_and_line_and_nothing_is_changed(tmp_path: Path) -> None:
    logbook = Logbook(tmp_path)
    for n in range(3):
        logbook.append({"kind": "verified", "n": n})
    lines = logbook.path.read_bytes().splitlines(keepends=True)
    logbook.path.write_bytes(lines[0] + b"garbage\n" + lines[2])
    with pytest.raises(JournalDamaged, match=r"upkeep\.jsonl: line 2 is not an entry .* restore the line"):
        said(logbook)
    assert logbook.path.read_bytes() == lines[0] + b"garbage\n" + lines[2]


@pytest.mark.parametrize("torn", range(3))
def test_append_of_several_that_was_torn_by_lost_power_is_no_damage(tmp_path: Path, torn: int) -> None:
    logbook = Logbook(tmp_path)
    logbook.append({"kind": "verified", "n": 0})
    before = logbook.path.stat().st_size
    logbook.append(*({"kind": "verified", "n": n, "long": "x" * 50_000} for n in (1, 2, 3)))
    content = bytearray(logbook.path.read_bytes())
    del content[content.rfind(b"\n ") + 1 :]  # the end of the append, written when all else is on the disk
    sector = before + 50_050 * torn + 512
    content[sector : sector + 512] = bytes(512)
    logbook.path.write_bytes(content)
    whole = list(range(1 + torn))
    assert said(logbook) == whole
    logbook.append({"kind": "verified", "n": 4}, {"kind": "verified", "n": 5})
    assert said(logbook) == [*whole, 4, 5]


def test_a_bit_that_flips_later_in_the_last_entries_is_damage_and_cuts_nothing(tmp_path: Path) -> None:
    logbook = Logbook(tmp_path)
    logbook.append(*({"kind": "quarantine", "n": n} for n in range(5)))
    content = bytearray(logbook.path.read_bytes())
    content[1] ^= 4
    logbook.path.write_bytes(content)
    with pytest.raises(JournalDamaged, match="line 1 is not an entry"):
        said(logbook)
    logbook.append({"kind": "quarantine", "n": 5})
    assert logbook.path.read_bytes().startswith(content)


def test_entries_without_a_kind_or_of_other_than_json_types_are_refused(tmp_path: Path) -> None:
    logbook = Logbook(tmp_path)
    with pytest.raises(InputError, match=r"with a kind, .*nothing was written"):
        logbook.append({"kind": "verified", "n": 1}, {"n": 2})
    with pytest.raises(InvalidDocument, match="it was not stored"):
        logbook.append({"kind": "verified", "n": object()})
    assert not logbook.path.exists()


def test_logbook_that_cannot_be_written_or_read_is_a_storage_error(tmp_path: Path) -> None:
    logbook = Logbook(tmp_path)
    logbook.path.mkdir()
    with pytest.raises(StorageError, match=r"upkeep\.jsonl: 1 entries could not be recorded"):
        logbook.append({"kind": "verified"})
    with pytest.raises(StorageError, match="cannot be read"):
        list(logbook.entries())


def test_entries_of_many_at_once_are_all_there_and_whole(tmp_path: Path) -> None:
    def write(writer: int) -> None:
        for n in range(20):
            Logbook(tmp_path).append({"kind": "verified", "n": (writer, n)})

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    seen = [len(said(Logbook(tmp_path))) for _ in range(20)]
    for thread in threads:
        thread.join()
    assert seen == sorted(seen)
    found = said(Logbook(tmp_path))
    assert sorted(map(tuple, found)) == [(writer, n) for writer in range(4) for n in range(20)]
    assert [[w, n] for w, n in found if w == 0] == [[0, n] for n in range(20)]
