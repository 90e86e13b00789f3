"""What makes two stores equal: journals, records and filled documents, but for uids and paths of resources."""

from __future__ import annotations

import json

import numpy as np

from gently_bluesky import LazyArray, Store, replay
from gently_bluesky.documents.journal import read_journal
from gently_bluesky.documents.resources import file_uri
from gently_bluesky.jsontext import encode


def comparable(value):
    """Return a value with arrays spelt out, so that equal says equal pixels, and NaN equals NaN."""
    if isinstance(value, dict):
        return {key: comparable(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [comparable(held) for held in value]
    if isinstance(value, LazyArray):
        axes = [value.dims, value.scale, value.units]
        return ["lazy", *map(str, axes), comparable(np.asarray(value))]
    if isinstance(value, np.ndarray):
        return ["array", value.dtype.str, list(value.shape), value.tobytes().hex()]
    return encode(value).decode()


def lines_of(root, *, same_format):
    """Return all journal lines by run, without what must differ: uids, roots and formats of resources."""
    runs = {}
    for path in sorted([*root.rglob("documents.jsonl"), *root.rglob("derived-*.jsonl")]):
        numbers = {}
        here = file_uri(root)
        for line in read_journal(path):
            if line.name == "start":
                lines = runs[line.doc["uid"]] = []
            elif is_ours(line):
                numbers[line.doc["uid"]] = f"resource {len(numbers)}"
            text = said([line.name, shown(line, same_format), line.digest, line.outcome, line.timestamps])
            text = text.replace(here, "")
            for uid, number in numbers.items():
                text = text.replace(uid, number)
            lines.append(text)
    return runs


def said(value):
    """Return a JSON value as text that is equal for equal values, NaN equal to NaN."""
    return json.dumps(value, sort_keys=True)


def is_ours(line):
    """Whether a line announces an asset of this package."""
    if line.name == "stream_resource":
        return str(line.doc["parameters"].get("spec")).startswith("GENTLY")
    return line.name == "resource" and line.doc["spec"].startswith("GENTLY")


def shown(line, same_format):
    if not is_ours(line):
        return line.doc
    doc = {key: value for key, value in line.doc.items() if key != "root"}
    return doc if same_format else {key: doc[key] for key in ("uid", "run_start")}


def records_of(store):
    """Return what the index says of every run, without where its journal is."""
    return {
        record.uid: (
            record.time, record.status, record.session, record.data_type, record.operation, record.parents,
            record.received, record.stored, record.lost, said(record.metadata),
        )
        for record in store.query()
    }  # fmt: skip


def filled_documents(store):
    return {
        record.uid: [(name, comparable(doc)) for name, doc in store[record.uid].documents(fill=True)]
        for record in store.query()
    }


def copied(original, root, **settings):
    with Store(root) as copy:
        return replay(original, copy.writer(**settings))


def assert_equal(original, copy, *, same_format, settled=list):
    """Check that two stores are equal; ``settled`` is called with each run's lines, and its documents."""
    one, other = lines_of(original, same_format=same_format), lines_of(copy, same_format=same_format)
    assert {uid: settled(lines) for uid, lines in one.items()} == {
        uid: settled(lines) for uid, lines in other.items()
    }
    with Store(original, mode="r") as first, Store(copy, mode="r") as second:
        assert records_of(first) == records_of(second)
        one, other = filled_documents(first), filled_documents(second)
        assert {uid: settled([said(named) for named in documents]) for uid, documents in one.items()} == {
            uid: settled([said(named) for named in documents]) for uid, documents in other.items()
        }
