"""Names of files, made from the templates of documents: numbers are put into them, and nothing else ever.

A template is never formatted by Python: ``{0.__class__}`` and ``%(x)s`` are no numbers, and are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from gently_bluesky.errors import AssetDamaged

__all__ = ["named_by", "numbered"]

PERCENT = re.compile(r"%(?P<zero>0?)(?P<width>\d{0,2})(?:\.(?P<digits>\d{1,2}))?[di]")
BRACES = re.compile(r"\{(?:0)?(?::(?P<zero>0?)(?P<width>\d{0,2})d?)?\}")
NOT_IN_A_NAME = re.compile(r"[/\\:\0%{}]")
LONGEST = 200


def numbered(folder: Path, template: str, filename: str = "") -> Callable[[int], Path]:
    """Return what gives the path of file ``n`` of a folder.

    Parameters
    ----------
    folder
        Of the files.
    template
        As area detectors have it, for a path, a name and a number (``"%s%s_%6.6d.tiff"``), or for the number
        alone (``"img_{:05d}.tif"``).
    filename
        The name that the first kind asks for.

    Raises
    ------
    AssetDamaged
        It gives anything but the name of a file in the folder, by one number.
    """
    before, number, after = _parts(folder, template, filename)
    parts = number.groupdict()
    blanks = int(parts["width"] or 0)
    digits = max(int(parts.get("digits") or 0), blanks if parts["zero"] else 0)
    return lambda n: folder / f"{before}{str(n).zfill(digits).rjust(blanks)}{after}"


def named_by(folder: Path, template: object, filename: object = "") -> re.Pattern[str]:
    """Return what the names of all files match that a template gives. Raises as `numbered`."""
    if not isinstance(template, str) or not isinstance(filename, str):
        raise _refused(folder, str(template), str(filename))
    before, _, after = _parts(folder, template, filename)
    return re.compile(rf"{re.escape(before)} *\d+{re.escape(after)}")


def _parts(folder: Path, template: str, filename: str) -> tuple[str, re.Match[str], str]:
    """Return what stands before the number in a name, the number's own part of the template, and what stands behind."""
    text, pattern = template, BRACES
    if "%" in template:
        text, pattern = template.removeprefix("%s").removeprefix("/").replace("%s", "\0", 1), PERCENT
    found = list(pattern.finditer(text))
    if len(found) != 1:
        raise _refused(folder, template, filename)
    (number,) = found
    before, after = (
        part.replace("\0", filename, 1) for part in (text[: number.start()], text[number.end() :])
    )
    if NOT_IN_A_NAME.search(before + after) or len(before + after) > LONGEST:
        raise _refused(folder, template, filename)
    return before, number, after


def _refused(folder: Path, template: str, filename: str) -> AssetDamaged:
    return AssetDamaged(
        f"{folder}: expected a template that puts one number into the name of a file of this folder, such as "
        f"'%s%s_%6.6d.tiff' or 'img_{{:05d}}.tif', got {template!r:.100} for the name {filename!r:.100}; nothing was "
        "read"
    )
