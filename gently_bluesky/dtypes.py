"""What numpy makes of the text that a document gives as a dtype."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["known_dtype"]


def known_dtype(said: object) -> np.dtype[Any] | None:
    """Return the numpy dtype that a text names, None where it names none, or is no text.

    numpy's reader of such texts raises whatever its parts raise: a TypeError for ``"what?"``, a ValueError for a
    time, a UnicodeEncodeError for half a character, a SyntaxError for ``"(1,f4"``.
    """
    try:
        return np.dtype(said) if isinstance(said, str) and said else None
    except (TypeError, ValueError, SyntaxError):
        return None
