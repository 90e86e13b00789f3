"""A session at a prompt: storage subscribed to a RunEngine first, and what people type every day.

`configure` does it for any namespace: this package's IPython profile, somebody else's, a worker of
bluesky-queueserver, which has no shell. Importing does nothing; ``%load_ext gently_bluesky`` calls `configure`.
"""

from __future__ import annotations

import atexit
import sys
import time
import warnings
from collections.abc import Mapping, MutableMapping
from datetime import datetime, timedelta
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gently_bluesky.configured import default_place
from gently_bluesky.documents.writer import StoreWriter
from gently_bluesky.errors import GentlyError, InvalidSetting, LookupFailed, MissingExtra, StoreReadOnly
from gently_bluesky.lasting import LastingMetadata
from gently_bluesky.store import Store

if TYPE_CHECKING:
    from bluesky import RunEngine
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["configure", "load_ipython_extension"]

METADATA = "metadata.json"
"""In the store's root: what ``RE.md`` holds from one session to the next."""
SAME_SESSION = timedelta(hours=8)
"""A session that is named by its date goes on past midnight as long as runs follow each other so closely."""


def configure(
    user_ns: MutableMapping[str, Any],
    store: Store | str | Path | None = None,
    *,
    writer: Mapping[str, Any] | None = None,
    best_effort: bool = True,
    progress_bars: bool = True,
    banner: bool | None = None,
) -> list[str]:
    """Make a namespace one for acquiring: a store that everything a RunEngine runs goes into.

    Call it where the RunEngine is made, before anything else is subscribed. Called again it adds what is missing, and
    nothing twice: a RunEngine that was made anew is subscribed to, a store that was closed is opened again.

    Parameters
    ----------
    user_ns
        The namespace: ``get_ipython().user_ns``, or ``globals()`` of a startup file. Its ``RE`` is used if it has
        one, and so are a ``store``, a ``writer`` of it, and a ``bec``; otherwise a RunEngine is made, whose ``md`` is
        kept in the store from one session to the next.
    store
        An open store, or a folder; by default the namespace's ``store``, ``$GENTLY_STORE``, the store that the current
        folder lies in, that of the configuration file, or ``~/dispim``. It is made if it is missing.
    writer
        Settings of `Store.writer`: ``{"format": "tiff"}``, for a writer that is made here. By default a failure is told
        at the prompt at once, by ``on_failure``.
    best_effort
        Subscribe bluesky's BestEffortCallback: a table of what is acquired, and plots as soon as matplotlib is
        interactive (``%matplotlib``). What it raises is a warning, and no failure of the plan.
    progress_bars
        Show how far what the plan waits for is, where there is a terminal.
    banner
        Print where the data go, and how the store is. By default where there is a shell.

    Returns
    -------
    list of str
        The names that were added, or would have been had they not been there: ``store``, ``writer``, ``RE``,
        ``bec``, modules and functions for plans. Of those that have nothing to do with storage, what the
        namespace has already is left alone.

    Raises
    ------
    GentlyError
        The store cannot be used: it is no store, or cannot be written. Nothing was added.
    InvalidSetting
        The namespace means something else by ``store`` or ``writer``, or has another store already; or a setting is
        out of range. Nothing was added.
    MissingExtra
        ``best_effort``, and matplotlib is not installed. Nothing was added.
    """
    _check_names(user_ns)
    bec = (user_ns.get("bec") or _best_effort()) if best_effort else None
    opened = _opened(user_ns.get("store"), store)
    had: StoreWriter | None = user_ns.get("writer")
    try:
        kept = (
            _writer(opened, writer or {})
            if had is None or had.closed or opened is not user_ns.get("store")
            else had
        )
        run_engine = user_ns.get("RE") or _run_engine(opened)
        _name_session(run_engine.md, opened)
        is_subscribed = _subscribe_first(run_engine, kept, had)
    except BaseException:  # Ctrl-C too: a store that nobody has a name for is closed
        if opened is not store and opened is not user_ns.get("store"):
            opened.close()
        raise
    added: dict[str, Any] = {"store": opened, "writer": kept, "RE": run_engine}
    if best_effort:
        added["bec"] = bec
        _subscribe_leniently(run_engine, bec)
    if progress_bars and sys.stderr.isatty() and run_engine.waiting_hook is None:
        from bluesky.utils import ProgressBarManager

        run_engine.waiting_hook = ProgressBarManager()
    user_ns.update(added)
    conveniences = _conveniences()
    for name, value in conveniences.items():
        user_ns.setdefault(name, value)
    atexit.register(_leave, opened, run_engine.md)
    shell = _shell()
    if shell is not None:
        from gently_bluesky.magics import GentlyMagics

        shell.register_magics(GentlyMagics(shell, opened, run_engine))
    if banner or (banner is None and shell is not None and is_subscribed):
        from gently_bluesky.welcome import welcome

        print(welcome(opened, run_engine.md.get("session")))
    return [*added, *conveniences]


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Configure the namespace of an IPython shell: ``%load_ext gently_bluesky``. Raises as `configure`."""
    configure(shell.user_ns)


# -- its parts -------------------------------------------------------------------------------------------------------


def _check_names(user_ns: Mapping[str, Any]) -> None:
    store, writer = user_ns.get("store"), user_ns.get("writer")
    of_another = isinstance(writer, StoreWriter) and not writer.closed and store is None
    for name, value, is_free in (
        ("store", store, store is None or isinstance(store, Store)),
        ("writer", writer, writer is None or (isinstance(writer, StoreWriter) and not of_another)),
    ):
        if not is_free:
            raise InvalidSetting(
                f"expected a namespace in which {name} is free, got {value!r:.80}; nothing was added; give it "
                "another name"
            )


def _opened(there: Store | None, wanted: Store | str | Path | None) -> Store:
    """Return the store that a namespace has, or else is to have; opened, where it is not open."""
    if isinstance(wanted, Store) and wanted.closed:
        raise InvalidSetting(f"expected an open store, got {wanted!r}; nothing was added; open it again")
    if wanted is None and there is not None and not there.closed:
        wanted = there
    place = default_place(
        wanted.root if isinstance(wanted, Store) else None if wanted is None else Path(wanted)
    )
    if there is not None and there.root != place.root:
        raise InvalidSetting(
            f"expected {there.root}, the store of this namespace, got {place.root}, named by {place.named_by}; nothing "
            "was added; name the former, or begin another session for another store"
        )
    known = [one for one in (there, wanted) if isinstance(one, Store) and not one.closed]
    store = (
        known[0]
        if known
        else Store(place.root, index=place.index, overflow=place.overflow, allowed_roots=place.allowed_roots)
    )
    if store.mode == "r":
        if not known:
            store.close()
        raise StoreReadOnly(
            f"{store.root} can only be read; expected a store to acquire into; nothing was subscribed; name another "
            "folder, by GENTLY_STORE for instance"
        )
    return store


def _writer(store: Store, said: Mapping[str, Any]) -> StoreWriter:
    settings: dict[str, Any] = {"on_failure": _tell, **said}
    unknown = settings.keys() - signature(store.writer).parameters.keys()
    if unknown:
        raise InvalidSetting(
            f"expected settings of Store.writer, got {', '.join(sorted(unknown))} too; nothing was added"
        )
    return store.writer(**settings)


def _run_engine(store: Store) -> Any:
    from bluesky import RunEngine

    from gently_bluesky.engine import InTurns

    metadata: Any = LastingMetadata(store.root / METADATA)  # any mapping does, where bluesky asks for a dict
    return RunEngine(metadata, during_task=InTurns())


def _subscribe_first(run_engine: RunEngine, writer: StoreWriter, instead_of: StoreWriter | None) -> bool:
    """Subscribe a writer in the place of one that is closed; say whether it was not subscribed before."""
    registry = run_engine.dispatcher.cb_registry
    subscribed = _subscribed(run_engine)
    if writer in subscribed.values():
        return False
    ours = [number for number, one in subscribed.items() if one is instead_of or isinstance(one, _Lenient)]
    if len(ours) < len(subscribed):
        warnings.warn(
            "callbacks were subscribed to RE before the store: one that raises keeps a document, and with it the "
            "frames, from the store; call configure() where RE is made",
            RuntimeWarning,
            stacklevel=3,
        )
    for number in ours:
        if subscribed[number] is instead_of:
            registry.disconnect(number)
    run_engine.subscribe(writer)
    return True


def _subscribed(run_engine: RunEngine) -> dict[int, Any]:
    """Return what a RunEngine calls with documents of any kind, by bluesky's numbers."""
    kinds = run_engine.dispatcher.cb_registry.callbacks.values()
    return {number: proxy.func for callbacks in kinds for number, proxy in callbacks.items()}


def _best_effort() -> Any:
    try:
        from bluesky.callbacks.best_effort import BestEffortCallback
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise MissingExtra(
            "bluesky's BestEffortCallback needs matplotlib, which is not installed; nothing was added; it comes with "
            "the extra 'profile': python -m pip install 'gently-bluesky[profile]'; or do without the table of what "
            "is acquired: configure(..., best_effort=False)"
        ) from error
    return BestEffortCallback()


def _subscribe_leniently(run_engine: RunEngine, best_effort: Any) -> None:
    """Subscribe a BestEffortCallback, unless it is."""
    if not any(one is best_effort or _is_of(one, best_effort) for one in _subscribed(run_engine).values()):
        run_engine.subscribe(_Lenient(best_effort))


def _is_of(callback: object, best_effort: object) -> bool:
    return isinstance(callback, _Lenient) and callback.callback is best_effort


class _Lenient:
    """A BestEffortCallback whose errors are warnings: what cannot be shown is acquired all the same.

    It has no plots until matplotlib is interactive: a figure that nobody sees takes memory all the same.
    """

    def __init__(self, callback: Any) -> None:
        self.callback = callback
        self._waits_for_windows = True
        callback.disable_plots()

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        try:
            if self._waits_for_windows and sys.modules["matplotlib"].is_interactive():
                self._waits_for_windows = False
                self.callback.enable_plots()
            self.callback(name, doc)
        except Exception as error:  # noqa: BLE001 # of whatever draws
            warnings.warn(
                f"{type(self.callback).__name__} could not show a {name} document: {error!r}; what is acquired is "
                "stored all the same",
                RuntimeWarning,
                stacklevel=2,
            )


def _name_session(metadata: MutableMapping[str, Any], store: Store) -> None:
    """Name the session by today's date, unless it was named by somebody, or has gone on past midnight."""
    now = datetime.now()
    named = metadata.get("session")
    if named == now.date().isoformat() or not _is_date(named):
        metadata.setdefault("session", now.date().isoformat())
        return
    try:
        last_s = store.latest(session=named).time
    except LookupFailed:
        last_s = 0.0
    if time.time() - last_s > SAME_SESSION.total_seconds():
        metadata["session"] = now.date().isoformat()


def _is_date(named: object) -> bool:
    try:
        return isinstance(named, str) and bool(datetime.strptime(named, "%Y-%m-%d"))
    except ValueError:
        return False


def _conveniences() -> dict[str, Any]:
    """Return what people at a prompt expect beside the store, by name."""
    import bluesky.plan_stubs as bps
    import bluesky.plans as bp
    import bluesky.preprocessors as bpp
    import numpy as np

    from gently_bluesky.documents.replay import replay
    from gently_bluesky.plans import session, with_parents

    return {
        "bp": bp,
        "bps": bps,
        "bpp": bpp,
        "np": np,
        "replay": replay,
        "session": session,
        "with_parents": with_parents,
    }


def _shell() -> InteractiveShell | None:
    """Return the IPython shell that this runs in, if it does."""
    if "IPython" not in sys.modules:
        return None
    from IPython.core.getipython import get_ipython

    return get_ipython()


def _tell(error: Exception) -> None:
    """Say at the prompt that storage failed, or that the run goes on elsewhere, as soon as it is known."""
    print(f"\nSTORAGE: {error}\n", file=sys.stderr, flush=True)


def _leave(store: Store, metadata: MutableMapping[str, Any]) -> None:
    """Write down the metadata, and close a store, when the program ends."""
    save = [metadata.save] if isinstance(metadata, LastingMetadata) else []
    for end in (*save, store.close):
        try:
            end()
        except GentlyError as error:
            print(f"STORAGE: {error}", file=sys.stderr)
