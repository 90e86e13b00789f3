"""How commands tell people, programs and the shell what there is and how it went."""

from __future__ import annotations

import errno
import json
import math
import os
import sys
import warnings
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import typer

from gently_bluesky.wording import printable

__all__ = [
    "INTERRUPTED",
    "NEEDS_A_PERSON",
    "NOTHING_FOUND",
    "remark",
    "say",
    "say_bytes",
    "say_json",
    "say_json_list",
    "told",
]

NOTHING_FOUND = 1
"""The exit code of a search that found nothing, as grep's."""
MISTYPED = 2
"""The exit code of typer where what was typed cannot be understood."""
NEEDS_A_PERSON = 3
"""The exit code where something was found, or left alone, that a person should look at."""
INTERRUPTED = 130
"""What shells say of a program that was ended from the keyboard."""


@contextmanager
def told(if_interrupted: str) -> Generator[None]:
    """Tell errors of ours in a line, and end with the exit code for them; well, where nobody reads on."""
    from gently_bluesky.errors import GentlyError, InvalidSetting

    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            yield
    except GentlyError as error:
        remark(f"error: {' '.join(str(error).split())}", colour="red")
        raise typer.Exit(MISTYPED if isinstance(error, InvalidSetting) else 1) from None
    except BrokenPipeError:
        raise typer.Exit(0) from None
    except KeyboardInterrupt:
        remark(f"interrupted: {if_interrupted}")
        raise typer.Exit(INTERRUPTED) from None


def _warn(message: Warning | str, *_: object) -> None:
    remark(f"warning: {' '.join(str(message).split())}")


def say(text: str) -> None:
    """Print a line, or several, to standard output, whatever encoding it has.

    Raises
    ------
    BrokenPipeError
        Nobody reads any more; what is printed from then on goes nowhere.
    """
    with _read_by_somebody():
        typer.echo(_spelt(text))


def say_bytes(data: bytes) -> None:
    """Print bytes to standard output as they are. Raises BrokenPipeError as `say`."""
    with _read_by_somebody():
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


@contextmanager
def _read_by_somebody() -> Generator[None]:
    try:
        yield
    except OSError as error:
        # Windows says EINVAL of a pipe that nobody reads
        if not isinstance(error, BrokenPipeError) and error.errno != errno.EINVAL:
            raise
        with suppress(OSError, ValueError):  # of a standard output that is no file
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise BrokenPipeError(errno.EPIPE, "nobody reads what is printed") from error


def _spelt(text: str) -> str:
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def remark(text: str, *, colour: str | None = None) -> None:
    """Print a line beside the output, to standard error: it is none of what was asked for.

    In colour on a terminal, unless ``$NO_COLOR`` asks for none (https://no-color.org).
    """
    text = printable(text)
    typer.echo(typer.style(text, fg=colour) if colour and not os.environ.get("NO_COLOR") else text, err=True)


def say_json(value: Mapping[str, Any]) -> None:
    """Print one thing as JSON."""
    say(json.dumps(_strict(value), indent=2, default=str))


def say_json_list(values: Iterable[Mapping[str, Any]]) -> None:
    """Print things as one JSON array, each on a line of its own, as they come."""
    waiting = "["
    for value in values:
        say(waiting)
        waiting = f"{json.dumps(_strict(value), default=str)},"
    say("[]" if waiting == "[" else f"{waiting.removesuffix(',')}\n]")


def _strict(value: Any) -> Any:
    """Return a value without what JSON has no word for: NaN and infinities become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _strict(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(held) for held in value]
    return value
