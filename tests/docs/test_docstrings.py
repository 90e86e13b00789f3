"""Every public name says what it is, and of what it takes nothing is left out or made up."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from numpydoc.docscrape import ClassDoc, FunctionDoc

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
MODULES = (
    "gently_bluesky",
    "gently_bluesky.devices.flying",
    "gently_bluesky.devices.ophyd",
    "gently_bluesky.devices.ophyd_async",
    "gently_bluesky.devices.plans",
    "gently_bluesky.devices.recorder",
    "gently_bluesky.errors",
    "gently_bluesky.plans",
    "gently_bluesky.sim",
    "gently_bluesky.sim.async_sheet",
    "gently_bluesky.testing.devices",
    "gently_bluesky.testing.documents",
    "gently_bluesky.testing.faults",
    "gently_bluesky.testing.frames",
    "gently_bluesky.testing.strategies",
    "gently_bluesky.testing.streams",
    "gently_bluesky.tiled",
    "gently_bluesky.wire",
)
TOLD_IN_FULL = (
    "gently_bluesky",
    "gently_bluesky.plans",
    "gently_bluesky.wire",
    "gently_bluesky.devices.plans",
)
NUMPYS_OWN = {"axis", "dtype", "out", "ddof", "keepdims"}
MADE_BY_THE_STORE = {"Run", "Stream", "StoreWriter", "LazyArray"}  # nobody calls these classes


def public(module: str) -> Iterator[tuple[str, object]]:
    """Yield the public names of a module, and of its classes what the package itself gives them."""
    home = importlib.import_module(module)
    for name in home.__all__:
        found = getattr(home, name)
        yield name, found
        if inspect.isclass(found):
            yield from members(name, found)


def members(name: str, found: type) -> Iterator[tuple[str, object]]:
    for attribute in dir(found):
        owner = next((each for each in found.__mro__ if attribute in vars(each)), object)
        member = inspect.getattr_static(found, attribute)
        if attribute.startswith("_") or not owner.__module__.startswith("gently_bluesky"):
            continue
        if isinstance(member, property):
            yield f"{name}.{attribute}", member
        elif inspect.isroutine(member):
            yield f"{name}.{attribute}", getattr(found, attribute)


def parameters_of(thing: object) -> list[str]:
    if not callable(thing):
        return []
    return [name for name in inspect.signature(thing).parameters if name != "self"]


def told_parameters(thing: object) -> list[str]:
    doc = ClassDoc(thing) if inspect.isclass(thing) else FunctionDoc(thing)
    names = [name.strip().lstrip("*") for entry in doc["Parameters"] for name in entry.name.split(",")]
    if inspect.isclass(thing):
        names += [name.strip() for entry in doc["Attributes"] for name in entry.name.split(",")]
    return names


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_says_in_a_line_what_it_is(module: str) -> None:
    silent = [
        name
        for name, thing in public(module)
        if not isinstance(thing, int)  # a constant's text stands below it
        and not re.match(r"\S.{8,118}[.:]$", (inspect.getdoc(thing) or "").partition("\n")[0])
    ]
    assert silent == []


@pytest.mark.parametrize("module", MODULES)
def test_no_parameter_is_made_up(module: str) -> None:
    for name, thing in public(module):
        if inspect.isroutine(thing):
            assert set(told_parameters(thing)) <= set(parameters_of(thing)), name


@pytest.mark.parametrize("module", TOLD_IN_FULL)
def test_every_parameter_is_described_or_speaks_for_itself(module: str) -> None:
    """One that is alone is what the first line is about; "as in" hands over to a sister that is described."""
    for name, thing in public(module):
        parameters = set(parameters_of(thing)) - NUMPYS_OWN
        if len(parameters) < 2 or name in MADE_BY_THE_STORE:
            continue
        text = inspect.getdoc(thing) or ""
        if re.search(r"[Tt]he parameters are those of `\w+`|^`\w+` for a function", text):
            continue
        unsaid = {
            one for one in parameters - set(told_parameters(thing)) if not re.search(rf"\b{one}\b", text)
        }
        assert unsaid == set(), name


@pytest.mark.parametrize("module", MODULES)
def test_the_reference_shows_it(module: str) -> None:
    pages = "".join(page.read_text("utf-8") for page in REFERENCE.glob("*.md"))
    home = importlib.import_module(module)
    assert f"automodule:: {module}\n" in pages or all(
        f":: {module}.{name}\n" in pages for name in home.__all__
    )
