"""``python -m benchmarks``: take the samples, print the tables, keep every figure."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks import docs
from benchmarks.frames import make_bank
from benchmarks.harness import RowResult, Runner
from benchmarks.machine import file_system, load
from benchmarks.plots import draw_rows
from benchmarks.record import record_of
from benchmarks.rows import ROWS, load_row
from benchmarks.terminal import print_goals, print_row

EXAMPLES = """\
examples:
  python -m benchmarks                              everything, about half an hour
  python -m benchmarks --quick                      everything, fewer and shorter samples
  python -m benchmarks --list                       what there is
  python -m benchmarks --rows write-zarr held       these rows
  python -m benchmarks --root /data --out results   data on another disk, results kept here
  python -m benchmarks --publish                    everything, and write the pages of the docs from it

The peers come with:  python -m pip install -e ".[bench]"
A peer that is not installed gives a line that says so.
"""
FRAME_SIZE = 2048
NOT_A_DISK = {"tmpfs", "ramfs", "devtmpfs"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.publish and asked.rows:
        parser.error("--publish is for all rows: the pages hold every figure or none; leave --rows away")
    console = Console(width=None if sys.stdout.isatty() else 160)
    if asked.list:
        for name in ROWS:
            console.print(f"{name:14s} {load_row(name, quick=asked.quick).title}", highlight=False)
        return 0
    root = asked.root or _a_disk()
    root.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="gently-benchmarks-", dir=root))
    results: list[RowResult] = []
    interrupted = False
    load_before = load()
    try:
        _run(asked, home, results, console)
    except KeyboardInterrupt:
        interrupted = True
        console.print("\ninterrupted: what there is follows", style="yellow")
    finally:
        record = record_of(results, home, quick=asked.quick, load_before=load_before)
        shutil.rmtree(home, ignore_errors=True)
    if interrupted and results:
        print_row(console, record["rows"][-1])
    print_goals(console, record)
    if asked.out is not None:
        asked.out.mkdir(parents=True, exist_ok=True)
        (asked.out / "results.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        draw_rows(record, asked.out)
        console.print(f"every sample is in {asked.out / 'results.json'}", highlight=False)
    if asked.publish and not interrupted:
        docs.publish(record)
        console.print(f"published in {docs.PAGE} and {docs.README}", highlight=False)
    missed = any(goal["met"] is not True for row in record["rows"] for goal in row["goals"])
    return 130 if interrupted else int(asked.strict and missed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure gently-bluesky beside what people use today, in turn, on this machine.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter samples: within 3 minutes")
    parser.add_argument("--rows", nargs="+", choices=ROWS, metavar="NAME", help="only these; see --list")
    parser.add_argument("--list", action="store_true", help="print the rows and end")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write results.json and plots there")
    parser.add_argument(
        "--root",
        type=Path,
        metavar="FOLDER",
        help="put data below it; by default a temporary folder on a disk",
    )
    parser.add_argument(
        "--publish", action="store_true", help="write docs/benchmarks.md, its files, and the README's table"
    )
    parser.add_argument(
        "--strict", action="store_true", help="exit with 1 if a goal is missed or not measured"
    )
    return parser


def _a_disk() -> Path:
    """Return a folder for temporary data that is not kept in memory."""
    usual = Path(tempfile.gettempdir())
    return Path.cwd() if file_system(usual) in NOT_A_DISK else usual


def _run(asked: argparse.Namespace, home: Path, results: list[RowResult], console: Console) -> None:
    with console.status("making frames") as status:
        bank = make_bank(home / "frames.npy", FRAME_SIZE)
        runner = Runner(home, bank, status.update)
        for name in asked.rows or ROWS:
            result = RowResult(load_row(name, quick=asked.quick))
            results.append(result)
            runner.run(result)
            (row,) = record_of([result], home, quick=asked.quick)["rows"]
            print_row(console, row)
            for who, details in result.details.items():
                console.print(f"{who}:\n{details}", style="red", markup=False, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
