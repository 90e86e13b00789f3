from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest

from gently_bluesky.errors import InvalidDocument, StorageError
from gently_bluesky.lasting import LastingMetadata


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metadata.json"


def test_what_is_put_in_is_there_in_the_next_session(path: Path) -> None:
    first = LastingMetadata(path)
    assert dict(first) == {}
    first["scan_id"] = np.int64(3)
    first["sample"] = {"name": "Näpfe", "ages_h": (1, 2)}
    first["gone"] = 1
    del first["gone"]
    assert dict(LastingMetadata(path)) == {"scan_id": 3, "sample": {"name": "Näpfe", "ages_h": [1, 2]}}
    assert "Näpfe" in path.read_text("utf-8")  # for people to read
    assert repr(first) == repr(dict(first))


def test_what_changes_inside_of_a_value_is_written_with_the_next_change(path: Path) -> None:
    metadata = LastingMetadata(path)
    metadata.setdefault("versions", {})["bluesky"] = "1"
    assert dict(LastingMetadata(path)) == {"versions": {}}
    metadata.save()
    assert dict(LastingMetadata(path)) == {"versions": {"bluesky": "1"}}


def test_a_session_that_changed_nothing_leaves_what_another_has_written(path: Path) -> None:
    LastingMetadata(path)["scan_id"] = 1
    idle = LastingMetadata(path)
    LastingMetadata(path)["scan_id"] = 2
    idle.save()
    assert dict(LastingMetadata(path)) == {"scan_id": 2}


def test_what_json_cannot_hold_inside_of_a_value_is_said_and_numbers_of_numpy_are_kept(path: Path) -> None:
    metadata = LastingMetadata(path)
    metadata["sample"] = {"age_h": 1}
    metadata["sample"]["age_h"] = np.int64(2)
    metadata.save()
    assert dict(LastingMetadata(path)) == {"sample": {"age_h": 2}}
    metadata["sample"]["scope"] = object()
    for change in (metadata.save, lambda: metadata.update(scan_id=3)):
        with pytest.raises(InvalidDocument, match=r"RE.md was not written.*a value of type object"):
            change()
    assert dict(LastingMetadata(path)) == {"sample": {"age_h": 2}}


def test_a_copy_is_written_nowhere(path: Path) -> None:
    metadata = LastingMetadata(path)
    metadata["sample"] = {"age_h": 1}
    copied = deepcopy(metadata)
    copied["sample"]["age_h"] = 2
    copied["scan_id"] = 1
    assert dict(metadata) == dict(LastingMetadata(path)) == {"sample": {"age_h": 1}}


def test_threads_lose_no_change_of_each_other(path: Path) -> None:
    metadata = LastingMetadata(path)

    def change(number: int) -> None:
        for step in range(10):
            metadata[f"{number}-{step}"] = step

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(change, range(4)))
    assert len(LastingMetadata(path)) == 40


@pytest.mark.parametrize("value", [object(), "\ud800", {"x": {1, 2}}, float])
def test_what_a_start_document_cannot_hold_changes_nothing(path: Path, value: object) -> None:
    metadata = LastingMetadata(path)
    metadata["kept"] = 1
    with pytest.raises(InvalidDocument, match=r"got"):
        metadata["bad"] = value
    assert dict(metadata) == dict(LastingMetadata(path)) == {"kept": 1}


def test_a_key_is_a_text(path: Path) -> None:
    with pytest.raises(InvalidDocument, match=r"got 3"):
        LastingMetadata(path)[3] = 4  # type: ignore[index]


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"a": ', b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_file_is_set_aside_and_said(path: Path, content: bytes) -> None:
    for number in (1, 2):
        path.write_bytes(content)
        with pytest.warns(RuntimeWarning, match=r"set aside as metadata.json.damaged"):
            metadata = LastingMetadata(path)
        assert dict(metadata) == {}
        assert path.with_name(f"metadata.json.damaged-{number}").read_bytes() == content
    metadata["a"] = 1
    assert json.loads(path.read_text("utf-8")) == {"a": 1}


def test_a_folder_in_its_place_is_an_error(path: Path) -> None:
    path.mkdir()
    with pytest.raises(StorageError, match=r"cannot be read"):
        LastingMetadata(path)
