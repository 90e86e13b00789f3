"""``gently-bluesky retain`` and ``du``: what people see, what programs get, and what the shell is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nights import acquire
from typer.testing import CliRunner

from gently_bluesky import Store
from gently_bluesky.cli import app


@pytest.fixture
def uids(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three runs that were verified, and a policy that keeps the last one."""
    monkeypatch.setenv("GENTLY_STORE", str(root))
    with Store(root) as store:
        uids = [acquire(store, "tiff") for _ in range(3)]
        store.verify(progress=False)
    (root / "retention.toml").write_text("name = 'nights'\n[[rule]]\nkeep_last = 1\n")
    return uids


def command(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == code, f"{done.stdout}{done.stderr}{done.exception!r}"
    return done.stdout or done.stderr


def deleted(root: Path) -> list[str]:
    with Store(root, mode="r") as reader:
        return [record.uid for record in reader.query(deleted=True)]


def test_a_plan_is_shown_and_nothing_goes_until_it_is_applied(root: Path, uids: list[str]):
    said = command("retain")
    assert "By the policy 'nights'" in said
    assert "2 of 3 runs would go" in said
    assert all(uid[:8] in said for uid in uids)
    assert deleted(root) == []
    said = command("retain", "--apply")
    assert "2 runs (" in said.splitlines()[-1]
    assert sorted(deleted(root)) == sorted(uids[:2])


def test_programs_get_the_plan_and_what_was_done(root: Path, uids: list[str]):
    plan = json.loads(command("retain", "--json"))
    assert [one["uid"] for one in plan["goes"]] == uids[:2]
    assert plan["nbytes"] == sum(one["nbytes"] for one in plan["goes"])
    told = json.loads(command("retain", "--apply", "--json"))
    assert told["plan"]["fingerprint"] == plan["fingerprint"]
    assert {one["run_uid"] for one in told["applied"]["deleted"]} == {*uids[:2]}


def test_another_policy_is_tried_without_being_the_store_s_own(root: Path, uids: list[str], tmp_path: Path):
    (tmp_path / "trial.toml").write_text("[[rule]]\nkeep_last = 2\n")
    assert "1 of 3 runs would go" in command("retain", "--policy", str(tmp_path / "trial.toml"))


def test_what_is_left_alone_needs_a_person(root: Path, uids: list[str]):
    with Store(root) as store:
        journal = root / store.record(uids[0]).path
    journal.write_bytes(journal.read_bytes().replace(b'"night"', b'"nigtt"'))
    assert "left alone" in command("retain", "--apply", code=3)
    assert deleted(root) == [uids[1]]


def test_what_cannot_be_done_is_told_and_nothing_is_made(root: Path, uids: list[str], tmp_path: Path):
    (root / "retention.toml").write_text("[[rule]]\nmax_agee = '3 days'\n")
    assert "got max_agee" in command("retain", "--apply", code=2)
    (root / "retention.toml").unlink()
    assert "there is none" in command("retain", code=2)
    assert "no store" in command("retain", "--apply", "--store", str(tmp_path / "mistyped"), code=1)
    assert not (tmp_path / "mistyped").exists()
    assert deleted(root) == []


def test_du_tells_what_the_files_take(root: Path, uids: list[str]):
    said = command("du", "--by", "embryo")
    assert said.startswith("e3")
    assert "3 runs" in said.splitlines()[0]
    assert "####" in said
    told = json.loads(command("du", "--by", "age", "--json"))
    files = root.glob("runs/**/*.tif")
    assert told["nbytes"] == sum(file.stat().st_size for file in files)
    assert [one["name"] for one in told["shares"]] == ["up to a day"]


@pytest.mark.parametrize("name", ["retain", "du"])
def test_help_has_examples(name: str):
    assert f"gently-bluesky {name}" in command(name, "--help")
