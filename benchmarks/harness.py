"""How a figure comes about: contenders take samples in turn, and goals are judged round by round.

A row has contenders: ours, peers, and floors that nobody can be faster than. Each round takes one sample of
each, in another order each time, so that what else the machine does meets all alike. A ratio is the
median of the ratios within the rounds. Nothing here knows what is measured.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any, Literal

from benchmarks.workers import SampleFailed, Worker

__all__ = ["Contender", "Goal", "Metric", "Row", "RowResult", "Runner", "judge"]


@dataclass(frozen=True)
class Metric:
    """A figure that samples hold under ``name``."""

    name: str
    title: str
    digits: int = 1
    better: Literal["more", "less"] = "more"


@dataclass(frozen=True)
class Contender:
    """Somebody who takes samples.

    Attributes
    ----------
    task
        ``module.function`` below ``benchmarks.rows``.
    options
        Keywords of the task.
    needs
        Modules without which it says so instead.
    note
        What a reader has to know to compare it with the others.
    """

    name: str
    task: str
    kind: Literal["ours", "peer", "floor"] = "ours"
    options: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Goal:
    """What a metric of ``ours`` has to be: alone, or over ``against`` (their ratio or difference).

    Attributes
    ----------
    text
        The goal in words, without its number's outcome.
    how
        ``ratio`` is ours / against, ``difference`` ours - against, ``value`` ours.
    headline
        Whether the README shows it.
    """

    what: str
    text: str
    metric: str
    ours: str
    against: str | None = None
    how: Literal["ratio", "difference", "value"] = "value"
    at_least: float | None = None
    at_most: float | None = None
    unit: str = ""
    against_metric: str | None = None
    headline: bool = True


@dataclass(frozen=True)
class Row:
    """One question that the benchmarks answer.

    Attributes
    ----------
    text
        What is measured, in a few sentences for the page.
    metrics
        The first is the one that is drawn.
    rounds
        Samples of each contender.
    fresh
        Every sample in a process of its own; otherwise a contender keeps one, with all set up.
    prepare
        A task that makes, once, what all contenders look at; what it returns joins their options.
    compared
        Whether the first of ours is set against each other one; otherwise they stand side by side.
    watch
        The memory of the process is looked at from outside while it takes a sample.
    curve
        Titles of the axes of the curve that samples hold under ``curve``, as ``[[x, y], ...]``.
    """

    name: str
    title: str
    text: str
    metrics: tuple[Metric, ...]
    contenders: tuple[Contender, ...]
    goals: tuple[Goal, ...] = ()
    rounds: int = 5
    fresh: bool = False
    watch: bool = False
    prepare: Contender | None = None
    curve: tuple[str, str] | None = None
    compared: bool = True


@dataclass
class RowResult:
    """What came of a row: by contender the samples, or why there are none."""

    row: Row
    samples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    troubles: dict[str, str] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)
    took_s: float = 0.0


def values(result: RowResult, contender: str, metric: str) -> list[float]:
    """Return a metric of each round; empty where it was not measured."""
    return [sample[metric] for sample in result.samples.get(contender, []) if sample.get(metric) is not None]


def judge(goal: Goal, result: RowResult) -> dict[str, Any]:
    """Return what a goal's figure is, round by round, and whether it is met; None where it was not measured."""
    ours = values(result, goal.ours, goal.metric)
    rounds = ours
    if goal.against is not None:
        others = values(result, goal.against, goal.against_metric or goal.metric)
        rounds = [_compare(goal, mine, other) for mine, other in zip(ours, others, strict=False)]
    rounds = [float(f"{number:.5g}") for number in rounds]
    said: dict[str, Any] = {"what": goal.what, "goal": goal.text, "unit": goal.unit, "rounds": rounds}
    said["headline"] = goal.headline
    if not rounds:
        return {**said, "value": None, "low": None, "high": None, "met": None}
    value = median(rounds)
    enough = goal.at_least is None or value >= goal.at_least
    little = goal.at_most is None or value <= goal.at_most
    return {**said, "value": value, "low": min(rounds), "high": max(rounds), "met": enough and little}


def _compare(goal: Goal, mine: float, other: float) -> float:
    match goal.how:
        case "ratio":
            return mine / other
        case "difference":
            return mine - other
        case "value":
            return mine


class Runner:
    """Takes the samples of rows.

    Parameters
    ----------
    root
        Where data go; what a sample leaves is removed at once.
    bank
        Of frames.
    tell
        Called with what is being done just now.
    """

    def __init__(self, root: Path, bank: Path, tell: Callable[[str], object]) -> None:
        self._root = root
        self._bank = bank
        self._tell = tell
        self._numbers = count()

    def run(self, result: RowResult) -> None:
        """Fill in what comes of a row; what has come by then is there when this is interrupted."""
        row = result.row
        home = self._root / f"{row.name}-{next(self._numbers)}"
        begun_s = time.monotonic()
        try:
            with ExitStack() as stack:
                prepared = self._prepare(row, home)
                contenders = [known for known in row.contenders if self._is_there(known, result)]
                workers = {} if row.fresh else self._start(contenders, prepared, home, result, stack)
                for turn in range(row.rounds):
                    self._round(turn, contenders, workers, prepared, home, result)
        except SampleFailed as error:
            result.troubles.update(
                {known.name: f"could not be prepared: {error}" for known in row.contenders}
            )
            result.details["preparation"] = error.details
        finally:
            shutil.rmtree(home, ignore_errors=True)
            result.took_s = time.monotonic() - begun_s

    def _round(
        self,
        turn: int,
        contenders: Sequence[Contender],
        workers: Mapping[str, Worker],
        prepared: Mapping[str, Any],
        home: Path,
        result: RowResult,
    ) -> None:
        for contender in _order(contenders, turn):
            if contender.name not in result.troubles:
                self._tell(f"{result.row.name}: round {turn + 1} of {result.row.rounds}, {contender.name}")
                self._sample(contender, workers.get(contender.name), prepared, home, result)

    def _is_there(self, contender: Contender, result: RowResult) -> bool:
        missing = [name for name in contender.needs if find_spec(name) is None]
        if missing:
            result.troubles[contender.name] = f"not installed: {', '.join(missing)}"
        return not missing

    def _prepare(self, row: Row, home: Path) -> Mapping[str, Any]:
        if row.prepare is None:
            return {}
        self._tell(f"{row.name}: {row.prepare.name}")
        with self._worker(row.prepare, {}, home) as worker:
            worker.wait_ready()
            return worker.sample(home / "prepared")

    def _start(
        self,
        contenders: Sequence[Contender],
        prepared: Mapping[str, Any],
        home: Path,
        result: RowResult,
        stack: ExitStack,
    ) -> dict[str, Worker]:
        workers = {
            known.name: stack.enter_context(self._worker(known, prepared, home)) for known in contenders
        }
        for name, worker in workers.items():
            self._tell(f"{result.row.name}: {name} gets ready")
            try:
                worker.wait_ready()
            except SampleFailed as error:
                result.troubles[name], result.details[name] = str(error), error.details
        return workers

    def _worker(self, contender: Contender, prepared: Mapping[str, Any], home: Path) -> Worker:
        scratch = home / f"worker-{next(self._numbers)}"
        return Worker(contender.task, {**prepared, **contender.options}, bank=self._bank, scratch=scratch)

    def _sample(
        self,
        contender: Contender,
        worker: Worker | None,
        prepared: Mapping[str, Any],
        home: Path,
        result: RowResult,
    ) -> None:
        folder = home / f"sample-{next(self._numbers)}"
        try:
            if worker is None:
                with self._worker(contender, prepared, home) as alone:
                    alone.wait_ready()
                    sample = alone.sample(folder, watch=result.row.watch)
            else:
                sample = worker.sample(folder, watch=result.row.watch)
            result.samples.setdefault(contender.name, []).append(sample)
        except SampleFailed as error:
            result.troubles[contender.name], result.details[contender.name] = str(error), error.details
        finally:
            _remove(folder)


def _order(contenders: Sequence[Contender], turn: int) -> list[Contender]:
    """Return whose turn it is: each round begins with another one, and every other round goes backward."""
    shift = turn % max(1, len(contenders))
    order = [*contenders[shift:], *contenders[:shift]]
    return order if turn % 2 == 0 else order[::-1]


def _remove(folder: Path) -> None:
    """Delete what a sample left, and let the file system be done with it before the next one begins."""
    shutil.rmtree(folder, ignore_errors=True)
    if hasattr(os, "sync"):
        os.sync()
