"""Commands as a shell runs them: over pipes, in a terminal, with Ctrl-C, and with what TAB offers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest
from typer.testing import CliRunner

from gently_bluesky.bench import Bench, BenchSettings, Storing
from gently_bluesky.cli import app
from gently_bluesky.cli.benching import say_bench
from gently_bluesky.cli.uids import complete_uid

COMMAND = str(Path(sys.executable).with_name("gently-bluesky"))
TIMEOUT_S = 120

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no bash, and no pty")


def test_a_pipe_that_is_closed_early_ends_a_command_well(shell, made):
    done = shell("gently-bluesky runs --all --derived | head -1")
    assert done.stdout.startswith("run ")
    assert (len(done.stdout.splitlines()), done.stderr) == (1, "")


@pytest.mark.parametrize("colour", [True, False])
def test_errors_are_red_in_a_terminal_unless_no_colour_is_asked_for(tmp_path, colour):
    environment = {name: said for name, said in os.environ.items() if name != "NO_COLOR"}
    child = pexpect.spawn(
        COMMAND,
        ["runs", "--store", str(tmp_path)],
        encoding="utf-8",
        timeout=TIMEOUT_S,
        env={**environment, "TERM": "xterm-256color", **({} if colour else {"NO_COLOR": "1"})},
    )
    try:
        child.expect(pexpect.EOF)
        assert "there is no store" in child.before
        assert ("\x1b[31m" in child.before) is colour
        assert ("\x1b" in child.before) is colour
    finally:
        child.close(force=True)


def test_a_picture_that_nobody_is_told_of_is_drawn_all_the_same(shell, tmp_path):
    for how in ("", "--json"):
        done = shell(f"gently-bluesky preview -1 --force -o drawn.png {how} > >(exec true)")
        assert done.stderr == ""
    assert (tmp_path / "drawn.png").is_file()


def test_what_a_verification_found_is_told_by_its_exit_code_though_nobody_reads(shell, tmp_path, made):
    line = f"cp -r {made.root} copy && rm copy/runs/*/*/*/*/primary-view_a/000002.ome.tif"
    shell(line)
    done = shell("gently-bluesky verify --store copy | true", code=3)
    assert done.stderr == ""


def test_an_encoding_without_lines_for_trees_prints_them_spelt(command, made):
    done = CliRunner(charset="ascii").invoke(app, ["lineage", made["projection"]])
    assert done.stdout.splitlines()[1].startswith(r"\u2514\u2500 primary/view_a")


def in_terminal(made, *arguments, columns):
    child = pexpect.spawn(
        COMMAND,
        list(arguments),
        encoding="utf-8",
        timeout=TIMEOUT_S,
        dimensions=(50, columns),
        env={**os.environ, "TERM": "xterm-256color", "GENTLY_STORE": str(made.root)},
    )
    try:
        child.expect(pexpect.EOF)
        child.wait()
        assert child.exitstatus == 0, child.before
        return child.before.replace("\r", "")
    finally:
        child.close(force=True)


def test_a_terminal_gets_colour_and_short_uids_and_no_line_wider_than_itself(made):
    said = in_terminal(made, "runs", "--all", "--derived", columns=80)
    assert f"{made['failed'][:8]}  " in said
    assert made["failed"] not in said
    assert "\x1b[31mfailed" in said
    plain = re.sub(r"\x1b\[[0-9;]*m", "", said)
    assert max(map(len, plain.splitlines())) <= 80
    assert "sample" in plain


# -- Ctrl-C --------------------------------------------------------------------------------------------


def test_ctrl_c_ends_a_measurement_and_leaves_nothing(tmp_path):
    arguments = ["bench", "--size", "256", "--seconds", "60", "--store", str(tmp_path / "new")]
    child = pexpect.spawn(COMMAND, arguments, encoding="utf-8", timeout=TIMEOUT_S, dimensions=(50, 120))
    try:
        child.expect("sync='event'")
        assert list(tmp_path.iterdir())
        child.sendintr()
        child.expect("interrupted: what was written for it is removed")
        child.expect(pexpect.EOF)
        child.wait()
        assert child.exitstatus == 130
    finally:
        child.close(force=True)
    assert list(tmp_path.iterdir()) == []


# -- TAB -----------------------------------------------------------------------------------------------


def offered(made, line, **environment):
    words = line.split(" ")
    done = subprocess.run(
        [COMMAND],
        env={
            **os.environ,
            "GENTLY_STORE": str(made.root),
            "_GENTLY_BLUESKY_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_tab_offers_the_newest_runs(made, tmp_path):
    expected = [made[name][:8] for name in ("simulated", "failed", "rewound")]
    assert offered(made, "gently-bluesky show ") == expected
    line = f"gently-bluesky export --store {made.root} "
    assert offered(made, line, GENTLY_STORE=str(tmp_path / "none")) == expected


class Context:
    def __init__(self, **params):
        self.params = params


def test_what_tab_offers_begins_as_what_was_typed(made):
    store = Context(store=made.root)
    uid = made["projection"]
    assert [one for one, _ in complete_uid(store, uid[:5])] == [uid[:8]]
    assert [one for one, _ in complete_uid(store, uid[:9])] == [uid]
    ((_, what),) = complete_uid(store, uid[:8])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d projection complete", what)
    assert complete_uid(store, "zz") == []


def test_tab_neither_fails_nor_writes_whatever_is_there(made, tmp_path):
    (tmp_path / "file").write_text("no store")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "index.sqlite").write_bytes(b"no index" * 100)
    for place in (tmp_path / "file", damaged, tmp_path / "none", "\0"):
        assert complete_uid(Context(store=place), "") == []
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["damaged", "file", "index.sqlite"]
    before = {path: path.stat().st_mtime_ns for path in made.root.rglob("*")}
    assert complete_uid(Context(store=made.root), "")
    assert {path: path.stat().st_mtime_ns for path in made.root.rglob("*")} == before


# -- bench ---------------------------------------------------------------------------------------------


def test_a_disk_is_measured_in_its_own_folder(command, tmp_path):
    arguments = ("bench", "--size", "64", "--seconds", "0.1", "--rate", "5", "--store", str(tmp_path / "new"))
    measured = json.loads(command(*arguments, "--json").stdout)
    assert measured["folder"] == str(tmp_path)
    assert [(one["format"], one["sync"]) for one in measured["storing"]] == [
        *(("zarr", "event"), ("zarr", "never"), ("tiff", "event"), ("tiff", "never")),
    ]
    for one in measured["storing"]:
        assert one["frames"] >= 1
        assert one["frames_per_s"] >= one["lasting_frames_per_s"] > 0
        assert one["frames_per_s"] * 64 * 64 * 2 == pytest.approx(one["bytes_per_s"])
    tiff = next(one for one in measured["storing"] if one["format"] == "tiff")
    assert tiff["compressed"] > 1
    assert measured["takes_camera"] == {
        one["format"]: one["lasting_frames_per_s"] >= 5
        for one in measured["storing"]
        if one["sync"] == "event"
    }
    assert measured["fsync_s"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_measurement_says_in_words_whether_the_disk_takes_the_camera(tmp_path, capsys):
    rows = [
        Storing(format, sync, 8 * 2**20, frames, 2.0, 0.5, frames * 4 * 2**20, 0.0031)
        for format, frames in (("zarr", 500), ("tiff", 125))
        for sync in ("event", "never")
    ]
    say_bench(Bench(BenchSettings(tmp_path), tmp_path, 10**12, 0.002, 0.01, 0.0, tuple(rows)))
    said = capsys.readouterr().out
    assert re.search(r"zarr +event +250 +2.10 +200 +50% +3.1 ms\n", said)
    assert "a camera of 100 frames/s of 2048 x 2048 makes 0.84 GB/s:\n" in said
    assert "zarr, every event synced: this disk takes it, 2.00 x its rate" in said
    assert "tiff, every event synced: too much for this disk, 0.50 x its rate" in said
    assert "busy" not in said


@pytest.mark.skipif(not Path("/dev/shm").is_mount(), reason="no disk is mounted here for sure")
def test_the_disk_of_a_store_that_is_the_top_of_it_is_the_one_that_is_measured(tmp_path):
    from gently_bluesky.bench import folder_for

    assert folder_for(Path("/dev/shm")) == Path("/dev/shm")
    assert folder_for(tmp_path) == tmp_path.parent
    assert folder_for(tmp_path / "new" / "deep") == tmp_path
