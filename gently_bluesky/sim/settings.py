"""Settings of simulated devices: signals that refuse what the hardware could not do.

A setting is an ophyd signal of kind ``config``, so that it stands in ``read_configuration()`` and in every
descriptor. It changes at once or raises; it never changes half way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ophyd import Signal
from ophyd.status import Status

from gently_bluesky.errors import InvalidSetting

__all__ = ["Derived", "Rule", "Setting", "as_number", "finite", "one_of", "whole"]

Rule = Callable[[Any], Any]
"""Returns the value as it is kept, or raises ValueError and says what was expected."""


class Setting(Signal):
    """A setting that is checked before it changes.

    Parameters
    ----------
    value
        What it is to begin with.
    rule
        What it may be; see ``finite``, ``whole`` and ``one_of``.
    """

    def __init__(self, *, value: Any, rule: Rule, **signal: Any) -> None:
        super().__init__(value=value, **signal)
        self.rule = rule

    def get(self, **_options: Any) -> Any:
        """Return what it is set to."""
        return self._readback

    def put(self, value: Any, **options: Any) -> None:
        """Change the setting now.

        Raises
        ------
        InvalidSetting
            When the rule refuses the value; the setting stays as it was.
        """
        try:
            kept = self.rule(value)
        except (TypeError, ValueError) as error:
            raise InvalidSetting(
                f"{self.name} must be {error}, not {value!r}; it stays at {self._readback!r}"
            ) from error
        super().put(kept, **options)

    def set(self, value: Any, **_options: Any) -> Status:
        """Change the setting now and return a status that is done; raises as ``put`` does."""
        self.put(value)
        status = Status(self)
        status.set_finished()
        return status


class Derived(Signal):
    """A read-only signal that says what an attribute of its device says.

    Parameters
    ----------
    attribute
        Name of the attribute of the device.
    """

    def __init__(self, *, attribute: str, **signal: Any) -> None:
        super().__init__(**signal)
        self._attribute = attribute
        self._metadata.update(write_access=False)

    def get(self, **_options: Any) -> Any:
        """Return what the attribute is now."""
        self._readback = getattr(self.parent, self._attribute)
        return self._readback

    def describe(self) -> Any:
        """Describe what the attribute is now."""
        self.get()
        return super().describe()


def as_number(value: Any) -> float | None:
    """Return a number as a float, and None for what is not a number (a bool is not)."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return None
    return float(value)


def finite(low: float, high: float, unit: str) -> Rule:
    """Allow numbers from low to high, both included."""

    def rule(value: Any) -> float:
        number = as_number(value)
        if number is None or not low <= number <= high:
            raise ValueError(f"a number from {low:g} to {high:g} {unit}")
        return number

    return rule


def whole(low: int, high: int) -> Rule:
    """Allow whole numbers from low to high, both included."""

    def rule(value: Any) -> int:
        number = as_number(value)
        if number is None or not number.is_integer() or not low <= number <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(number)

    return rule


def one_of(*choices: Any) -> Rule:
    """Allow a few values."""

    def rule(value: Any) -> Any:
        for choice in choices:
            if value == choice:
                return choice
        raise ValueError(f"one of {', '.join(map(repr, choices))}")

    return rule
