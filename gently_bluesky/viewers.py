"""A lazy array handed over to a viewer of its own: napari, or else ndv. They read what they show."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gently_bluesky.errors import MissingExtra
from gently_bluesky.glances import brightness

if TYPE_CHECKING:
    from gently_bluesky.lazy import LazyArray

__all__ = ["opened_in_viewer"]

COLOURS = ("green", "magenta", "cyan", "yellow", "red", "blue")


def opened_in_viewer(array: LazyArray) -> Any:
    """Open an array in napari, or in ndv where there is no napari; return the viewer.

    One plane of each view is read here, as for a picture in a notebook, to know what is bright.

    Raises
    ------
    MissingExtra
        Neither is installed.
    """
    for name, opened in (("napari", _in_napari), ("ndv", _in_ndv)):
        try:
            module = import_module(name)
        except ImportError as error:
            if error.name != name:
                raise
        else:
            return opened(module, array)
    raise MissingExtra(
        "view() needs napari or ndv, and neither is installed; nothing was read; install one: "
        "python -m pip install 'napari[all]', or python -m pip install 'ndv[qt]'; array.preview() needs neither"
    )


def _in_napari(napari: Any, array: LazyArray) -> Any:
    """Add it to the window that is open, or to a new one: a layer for each view or channel, with its steps."""
    viewer = napari.current_viewer() or napari.Viewer()
    parts = _parts(array)
    for number, (part, name) in enumerate(parts):
        viewer.add_image(
            part,
            name=name,
            scale=part.scale,
            units=tuple(unit or "pixel" for unit in part.units),
            axis_labels=part.dims,
            contrast_limits=brightness(part),
            colormap=COLOURS[number % len(COLOURS)] if len(parts) > 1 else "gray",
            blending="additive",
            rgb=_has_colours(part),
            multiscale=False,
        )
    shown = parts[0][0]
    for dim, place in _places(shown).items():
        viewer.dims.set_current_step(viewer.dims.ndim - shown.ndim + shown.dims.index(dim), place)
    return viewer


def _in_ndv(ndv: Any, array: LazyArray) -> Any:
    """Open a window of its own, at the newest event."""
    split = _split(array)
    more: dict[str, Any] = {"channel_axis": split, "channel_mode": "composite"} if split else {}
    return ndv.imshow(
        array,
        scales=dict(zip(array.dims, array.scale, strict=True)),
        default_lut={"clims": brightness(array)},
        current_index=_places(array),
        **more,
    )


def _places(array: LazyArray) -> dict[str, int]:
    """Return where to look first: at the newest event, and in the middle of a volume."""
    lengths = dict(zip(array.dims, array.shape, strict=True))
    found = {"t": lengths.get("t", 0) - 1, "z": lengths.get("z", 0) // 2}
    return {dim: place for dim, place in found.items() if lengths.get(dim)}


def _parts(array: LazyArray) -> list[tuple[LazyArray, str]]:
    """Return the views or channels of an array, nothing of them read, with their names."""
    split, name = _split(array), array.name or "array"
    if split is None:
        return [(array, name)]
    axis = array.dims.index(split)
    names = array.channels or tuple(f"{split} {number}" for number in range(array.shape[axis]))
    return [(array[(slice(None),) * axis + (number,)], f"{name} {one}") for number, one in enumerate(names)]


def _split(array: LazyArray) -> str | None:
    """Return the axis of views or channels, if there is one that is not that of colours."""
    return next(
        (dim for dim in ("v", "c") if dim in array.dims and not (dim == "c" and _has_colours(array))), None
    )


def _has_colours(array: LazyArray) -> bool:
    return bool(array.dims) and array.dims[-1] == "c" and array.shape[-1] in (3, 4) and array.ndim > 2
