"""The figures in the docs are those that were measured, and the command that measures them works."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import docs
from benchmarks.__main__ import main
from benchmarks.frames import make_bank
from benchmarks.harness import Contender, Row, RowResult, Runner
from benchmarks.record import record_of
from benchmarks.rows import ROWS, load_row
from benchmarks.workers import own_memory_mb

HERE = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    return json.loads(docs.RESULTS.read_text("utf-8"))


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    return make_bank(tmp_path / "frames.npy", size=64, frames=4)


def tiny_row(*others: Contender) -> Row:
    row = load_row("write-zarr", quick=True)
    ours, *_ = row.contenders
    few = (replace(ours, options={"frames": 3}), *others)
    return replace(row, contenders=few, rounds=2)


def run(row: Row, root: Path, bank: Path) -> RowResult:
    result = RowResult(row)
    Runner(root, bank, tell=lambda _: None).run(result)
    return result


def test_page_is_what_the_results_say(published: dict[str, Any]) -> None:
    assert docs.PAGE.read_text("utf-8") == docs.page(published)


def test_table_in_the_readme_is_what_the_results_say(published: dict[str, Any]) -> None:
    readme = docs.README.read_text("utf-8")
    assert docs.with_part(readme, docs.readme_part(published)) == readme


def test_published_results_hold_every_row_and_are_small(published: dict[str, Any]) -> None:
    assert [row["name"] for row in published["rows"]] == list(ROWS)
    assert sum(file.stat().st_size for file in docs.RESULTS.parent.iterdir()) < 1e6


def test_command_lists_its_rows() -> None:
    command = [sys.executable, "-W", "error", "-m", "benchmarks", "--list"]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(ROWS)


def test_a_part_of_the_rows_is_not_published(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--publish", "--rows", "import"])
    assert "leave --rows away" in capsys.readouterr().err


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("name", ROWS)
def test_goals_are_of_contenders_and_figures_that_the_row_has(name: str, quick: bool) -> None:
    row = load_row(name, quick=quick)
    contenders = {contender.name for contender in row.contenders}
    metrics = {metric.name for metric in row.metrics}
    for goal in row.goals:
        assert goal.ours in contenders
        assert {goal.against} <= contenders | {None}
        assert {goal.metric, goal.against_metric or goal.metric} <= metrics
        assert (goal.at_least is None) != (goal.at_most is None)


def test_row_runs_and_every_sample_is_kept(tmp_path: Path, bank: Path) -> None:
    result = run(tiny_row(), tmp_path / "data", bank)
    assert result.troubles == {}
    (samples,) = result.samples.values()
    assert len(samples) == 2
    assert all(sample["frames_per_s"] > 0 for sample in samples)
    record = json.loads(json.dumps(record_of([result], tmp_path, quick=True)))
    assert record["rows"][0]["contenders"][0]["samples"][1].keys() >= {"frames_per_s", "gb_per_s"}
    assert "| gently-bluesky | ours |" in docs.page(record)
    assert list((tmp_path / "data").iterdir()) == []


def test_peer_that_is_not_installed_gives_a_row_that_says_so(tmp_path: Path, bank: Path) -> None:
    peer = Contender("a peer", "writing.suitcase", "peer", {"frames": 3}, ("no_such_module",))
    result = run(tiny_row(peer), tmp_path / "data", bank)
    assert result.troubles == {"a peer": "not installed: no_such_module"}
    assert "| a peer | peer | not installed: no_such_module |" in docs.page(
        record_of([result], tmp_path, quick=True)
    )


def test_contender_that_fails_does_not_take_the_others_with_it(tmp_path: Path, bank: Path) -> None:
    broken = Contender("broken", "writing.store_frames", options={"frames": 3, "format": "no-such-format"})
    result = run(tiny_row(broken), tmp_path / "data", bank)
    assert "no-such-format" in result.troubles["broken"]
    assert len(result.samples["gently-bluesky"]) == 2


def test_interrupted_row_keeps_its_samples_and_leaves_no_data(tmp_path: Path, bank: Path) -> None:
    def interrupt(told: str) -> None:
        if "round 2" in told:
            raise KeyboardInterrupt

    result = RowResult(tiny_row())
    with pytest.raises(KeyboardInterrupt):
        Runner(tmp_path / "data", bank, tell=interrupt).run(result)
    assert len(result.samples["gently-bluesky"]) == 1
    assert list((tmp_path / "data").iterdir()) == []


def test_memory_of_a_process_is_seen_from_outside() -> None:
    code = "import sys; kept = bytearray(50_000_000); print('there', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        assert own_memory_mb(process.pid) > 50
        process.communicate()
