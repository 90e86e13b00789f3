"""How commands tell people, and the shell, how it went."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import typer

__all__ = ["INTERRUPTED", "NEEDS_A_PERSON", "told"]

NEEDS_A_PERSON = 3
"""The exit code where something was found, or left alone, that a person should look at."""
INTERRUPTED = 130
"""What shells say of a program that was ended from the keyboard."""


@contextmanager
def told(if_interrupted: str) -> Generator[None]:
    """Tell errors of ours in a line, and end with the exit code for them."""
    from gently_bluesky.errors import GentlyError

    try:
        yield
    except GentlyError as error:
        typer.secho(f"error: {' '.join(str(error).split())}", fg="red", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo(f"interrupted: {if_interrupted}", err=True)
        raise typer.Exit(INTERRUPTED) from None
