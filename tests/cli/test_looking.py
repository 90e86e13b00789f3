"""``runs``, ``find``, ``show``, ``lineage`` and ``stats``: what people and programs are told of a store."""

from __future__ import annotations

import json
import re
import sys
from inspect import cleandoc

import numpy as np
import pexpect
import pytest
from typer.testing import CliRunner

from gently_bluesky import Store
from gently_bluesky.cli import app

COMMANDS = sorted(command.name or command.callback.__name__ for command in app.registered_commands)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_helps_with_examples_and_prints_json(command, name):
    said = command(name, "--help").stdout
    assert f"gently-bluesky {name}" in said.partition("Examples")[2]
    assert "--json" in said


@pytest.mark.parametrize("command", app.registered_commands, ids=COMMANDS)
def test_paragraphs_of_a_help_are_broken_only_where_the_terminal_ends(command):
    name = command.name or command.callback.__name__
    said = CliRunner(env={"COLUMNS": "500"}).invoke(app, [name, "--help"]).stdout
    shown = [line.strip() for line in said.splitlines()]
    paragraphs = cleandoc(command.callback.__doc__).split("\n\n")
    assert [" ".join(paragraph.split()) in shown for paragraph in paragraphs] == [True] * len(paragraphs)


# -- runs ----------------------------------------------------------------------------------------------


def test_runs_are_listed_newest_first_and_whole_for_a_pipe(command, made):
    heading, *lines = command("runs").stdout.splitlines()
    assert heading.split() == ["run", "when", "plan", "session", "sample", "status", "arrays", "size"]
    assert [line.split()[0] for line in lines] == [made["simulated"], made["failed"], made["rewound"]]
    assert "view_a, view_b 1x32x32x32" in lines[0]
    assert "fish" in lines[1]
    assert "failed" in lines[1]
    assert re.search(r"night +e3 +complete +view_a, view_b 4x3x40x50 +96.0 kB$", lines[2])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--last", "1"], ["simulated"]),
        (["--session", "night"], ["simulated", "rewound"]),
        (["--session", "night", "--derived"], ["projection", "simulated", "rewound"]),
        (["--all", "--derived"], ["count", "projection", "simulated", "failed", "rewound"]),
        (["--since", "2020-01-01", "-n", "2"], ["simulated", "failed"]),
        (["--since", "2999-01-01"], []),
    ],
)
def test_runs_are_chosen(command, made, arguments, expected):
    found = json.loads(command("runs", "--json", *arguments).stdout)
    assert [run["uid"] for run in found] == [made[name] for name in expected]


def test_a_run_in_json_has_its_arrays_and_what_the_start_document_says(command, made):
    (run,) = json.loads(command("runs", "--last", "1", "--json").stdout)
    assert run["metadata"]["embryo"] == "e3"
    assert (run["status"], run["received"], run["stored"], run["lost"]) == ("complete", 2, 2, 0)
    assert [(array["data_key"], array["shape"]) for array in run["arrays"]] == [
        ("view_a", [1, 32, 32, 32]),
        ("view_b", [1, 32, 32, 32]),
    ]
    assert run["nbytes"] == 2 * 32**3 * 2


def test_a_store_without_runs_is_no_error(command, tmp_path):
    Store(tmp_path / "new").close()
    done = command("runs", "--store", str(tmp_path / "new"))
    assert (done.stdout, done.stderr) == ("", f"no runs in {tmp_path / 'new'}\n")
    none = command("show", "-1", "--store", str(tmp_path / "new"), code=1).stderr
    assert f"expected at least 1 acquired run in {tmp_path / 'new'}, there is none" in none
    assert json.loads(command("runs", "--store", str(tmp_path / "new"), "--json").stdout) == []


def test_a_store_that_is_not_there_is_told_in_a_line_and_not_made(command, tmp_path):
    done = command("runs", "--store", str(tmp_path / "typo"), code=1)
    assert re.fullmatch(
        r"error: there is no store at .*typo; .* takes --store, or \$GENTLY_STORE.*\n", done.stderr
    )
    assert not (tmp_path / "typo").exists()


# -- find ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (["embryo=e3", "derived=false"], ["simulated", "rewound"]),
        (["plate=3"], ["simulated"]),
        (["sample.age_h=30.0"], ["failed"]),
        (['sample={"name": "fish"}', "derived=false"], ["failed"]),
        (["data_type=projection", "since=2020-01-01"], ["projection"]),
        (["operation=count"], ["count"]),
        (["kind=datum", "data_key=view_a", "session=night", "stream=primary"], None),
        (["status=failed", "until=4102444800"], ["failed"]),
    ],
)
def test_what_is_found_answers_to_all_conditions(command, made, conditions, expected):
    found = json.loads(command("find", "--json", *conditions).stdout)
    if expected is None:
        assert len(found) == 5
        assert {(record["kind"], record["data_key"]) for record in found} == {("datum", "view_a")}
    else:
        assert [record["uid"] for record in found] == [made[name] for name in expected]


def test_a_search_that_finds_nothing_ends_with_1_as_grep(command):
    done = command("find", 'plate="3"', code=1)
    assert done.stdout == ""
    assert "nothing in" in done.stderr
    assert "nothing in" in command("find", "self=x", "index=y", "kinds=z", code=1).stderr
    assert "plate=4 was read as a number" in command("find", "plate=4", code=1).stderr
    assert json.loads(command("find", "embryo=zz", "--json", code=1).stdout) == []


def test_conditions_that_are_none_are_refused_by_name(command):
    assert "expected key=value, got 'e3'" in command("find", "e3", code=2).stderr
    assert "derived=true" in command("find", "derived=yes", code=2).stderr
    assert "expected status to be one of" in command("find", "status=well", code=2).stderr


def test_arrays_are_found_as_a_table_too(command, made):
    heading, first, *_ = command("find", "kind=asset", "data_key=view_a", "session=night").stdout.splitlines()
    assert heading.split() == ["uid", "when", "of", "shape", "dtype", "run", "status"]
    assert "primary/view_a" in first
    assert made["simulated"] in first


# -- show ----------------------------------------------------------------------------------------------


def test_the_latest_run_is_shown_by_a_number(command, made):
    said = command("show", "-1").stdout
    assert said.startswith(f"run {made['simulated']}\n")
    assert "2 received, 2 stored, 0 lost" in said
    assert re.search(r"embryo +e3\n", said)
    assert "stream primary, 1 event\n" in said
    assert re.search(
        r"view_a +\(t: 1, z: 32, y: 32, x: 32\) uint16 65.5 kB \S+ primary-view_a.ome.zarr", said
    )
    assert re.search(r"dispim_stage_x +number in um", said)
    assert command("show", "-3").stdout.startswith(f"run {made['rewound']}\n")


def test_a_failure_is_told_with_its_reason_and_moves_no_cursor(command, made):
    said = command("show", made["failed"][:8]).stdout
    assert 'the "stage" hit?[2J the \\wall' in said
    assert "\x1b" not in said
    assert re.search(r'sample +{"name": "fish", "age_h": 30}\n', said)
    assert json.loads(command("show", made["failed"], "--json").stdout)["stop"]["reason"].startswith("the ")


def test_arrays_and_events_are_shown_as_trees_name_them(command, made):
    asset, event = made["array"], made["event"]
    said = command("show", asset[:8]).stdout
    assert said.startswith(f"array {asset}\nprimary/view_a")
    assert "(t: 4, z: 3, y: 40, x: 50)" in said
    assert re.search(r"files +\S+primary-view_a \(\d", said)
    said = command("show", f"{asset[:8]}/1").stdout  # which repeats event 0
    assert said.startswith(f"event 1 {event}\n")
    assert f"of array  {asset}" in said
    assert "made from it\n  projection" in said
    shown = json.loads(command("show", f"{asset[:8]}/1", "--json").stdout)
    assert (shown["uid"], shown["shape"], shown["children"]) == (event, [3, 40, 50], [made["projection"]])


def test_a_result_is_shown_with_its_parents_and_children(command, made):
    said = command("show", made["projection"]).stdout
    assert f"made from\n  primary/view_a {made['event'][:8]}/1" in said
    assert f'made from it\n  count "of" \\n {made["count"][:8]}' in said
    assert re.search(r"\n  journal +\S+derived-\S+.jsonl\n", command("show", made["count"]).stdout)


def test_it_is_told_when_a_run_was_verified(command, tmp_path):
    root = str(tmp_path / "own")
    with Store(root) as store:
        store.put([[1, 2], [3, 4]], data_type="table")
    assert re.search(r"verified +never\n", command("show", "--store", root, _uid(root)).stdout)
    command("verify", "--store", root)
    assert re.search(
        r"verified +\d{4}-.*, all was well\n", command("show", "--store", root, _uid(root)).stdout
    )


def _uid(root):
    with Store(root, mode="r") as store:
        return store.latest().uid


@pytest.mark.parametrize("name", ["show", "lineage", "export", "verify", "preview"])
def test_a_mistyped_option_is_no_uid(command, name):
    assert "there is no option --jsn" in flat(command(name, "--jsn", *TO.get(name, ()), code=2).stderr)


TO = {"export": ("--to", "npy")}


def flat(said):
    return " ".join(said.replace("│", "").split())


def test_uids_that_are_none_are_told_in_a_line(command):
    assert "no run, asset or datum has the uid 'zz'" in command("show", "zz", code=1).stderr
    assert "no run, asset or datum has the uid 'zz'" in command("show", "zz/0", code=1).stderr
    assert "expected at least 9 acquired runs" in command("show", "-9", code=1).stderr


def test_the_latest_run_is_verified_by_its_number(command):
    assert command("verify", "-1").stdout.startswith("1 run, 2 arrays, 2 events, ")


# -- lineage -------------------------------------------------------------------------------------------


def test_a_lineage_is_printed_as_a_tree(command, made):
    with Store(made.root, mode="r") as store:
        assert command("lineage", made["count"]).stdout == f"{store.lineage(made['count'])}\n"


def test_what_was_made_from_a_run_is_a_tree_too(command, made):
    lines = command("lineage", made["rewound"][:8], "--children").stdout.splitlines()
    assert lines[0].split()[1] == made["rewound"][:8]
    assert lines[1].startswith(f"└─ projection {made['projection'][:8]} max_z")
    assert lines[2].startswith(f'   └─ count "of" \\n {made["count"][:8]} count')


EDGE = re.compile(r'  "([^"]+)" -> "([^"]+)";')
NODE = re.compile(r'  "([^"]+)" \[label="((?:[^"\\]|\\.)*)"\];')


@pytest.mark.parametrize("direction", [[], ["--children"]])
def test_a_graph_names_each_record_once_and_points_at_what_it_was_made_from(command, made, direction):
    uid = made["rewound"] if direction else made["count"]
    first, *lines, last = command("lineage", uid, "--dot", *direction).stdout.splitlines()
    assert (first, last) == ("digraph lineage {", "}")
    nodes = {found[1]: found[2] for found in map(NODE.fullmatch, lines) if found}
    edges = {found.groups() for found in map(EDGE.fullmatch, lines) if found}
    assert len(nodes) + len(edges) + 2 == len(lines)
    assert nodes[made["count"]].startswith(r"count \"of\" \\n ")
    assert (made["count"], made["projection"]) in edges
    assert (made["projection"], made["rewound"] if direction else made["event"]) in edges
    assert {uid for edge in edges for uid in edge} == set(nodes)


def test_a_lineage_in_json_has_records_and_edges(command, made):
    known = json.loads(command("lineage", made["count"], "--json").stdout)
    assert {record["uid"] for record in known["records"]} == {
        made[name] for name in ("count", "projection", "event", "failed")
    }
    assert {"parent": made["event"], "child": made["projection"]} in known["edges"]
    assert "--dot and --json" in command("lineage", "-1", "--dot", "--json", code=2).stderr


# -- stats ---------------------------------------------------------------------------------------------


def test_one_thing_is_counted_as_one(command, tmp_path):
    with Store(tmp_path / "new") as store:
        store.put(np.zeros((8, 9), "u2"), data_type="projection")
    said = command("stats", "--store", str(tmp_path / "new")).stdout
    assert re.search(r"runs +0 of the microscope, 1 derived result\n", said)
    assert re.search(r"arrays +1, of 1 event\n", said)
    assert "1 derived result (" in Store(tmp_path / "new", mode="r")._repr_html_()
    assert "primary: 1 event\n" in command("replay", str(tmp_path / "new")).stdout


@pytest.mark.skipif(sys.platform == "win32", reason="terminals of POSIX")
def test_the_bar_of_a_verification_counts_one_run_as_one(tmp_path):
    with Store(tmp_path / "new") as store:
        store.put(np.zeros((8, 9), "u2"), data_type="projection")
    arguments = [
        "-c",
        "from gently_bluesky.cli import app; app()",
        "verify",
        "--store",
        str(tmp_path / "new"),
    ]
    with pexpect.spawn(sys.executable, arguments, timeout=100, encoding="utf-8") as terminal:
        said = terminal.read()
        assert terminal.wait() == 0, said
    assert re.search(r"Verifying .*, 1 run\b", said), said


def test_how_much_there_is_is_said(command, made):
    said = command("stats").stdout
    assert said.startswith(f"{made.root}\n")
    assert re.search(r"runs +3 of the microscope, 2 derived results\n", said)
    assert re.search(r"status +4 complete, 1 failed\n", said)
    assert re.search(r"sessions +2: day, night\n", said)
    with Store(made.root, mode="r") as store:
        expected = store.stats()
    known = json.loads(command("stats", "--json").stdout)
    assert known.pop("free_bytes") > 0
    assert known == {name: value for name, value in expected.items() if name != "free_bytes"}
