"""Documents to bluesky's 0MQ proxy from a command that ends: sent when the proxy is there, and all of them."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from gently_bluesky.errors import MissingExtra, StorageError
from gently_bluesky.wire import pack

__all__ = ["published"]

PATIENCE_S = 10
MAX_WAITING = 8


@contextmanager
def published(address: str) -> Generator[Callable[[str, dict[str, Any]], object]]:
    """Give a callback that sends documents as bluesky's ``Publisher(address, serializer=pack)`` does.

    That one's socket does not say whether somebody is there, and loses what is sent before; this one's does.

    Raises
    ------
    MissingExtra
        pyzmq is not installed.
    StorageError
        No proxy is there.
    """
    try:
        import zmq
    except ImportError as error:
        raise MissingExtra(
            "--publish needs pyzmq, which is not installed; nothing was sent; pip install 'gently-bluesky[zmq]'"
        ) from error
    full = address if "://" in address else f"tcp://{address}"
    with zmq.Context() as context, context.socket(zmq.XPUB) as socket:
        socket.setsockopt(zmq.XPUB_NODROP, 1)
        socket.setsockopt(zmq.SNDHWM, MAX_WAITING)
        socket.setsockopt(zmq.LINGER, 0)
        try:
            socket.connect(full)
        except zmq.ZMQError as error:
            raise StorageError(
                f"{address}: expected an address such as tcp://localhost:5577 ({error}); nothing was sent"
            ) from error
        if not socket.poll(PATIENCE_S * 1000):  # what subscribes says so
            raise StorageError(
                f"no proxy answers at {full} for {PATIENCE_S} s; nothing was sent; start it, and its listeners, first"
            )
        socket.recv()
        # see Publisher.__call__ of bluesky.callbacks.zmq: a prefix, which is empty, the name, the document
        yield lambda name, doc: socket.send(b" ".join([b"", name.encode(), pack(doc)]))
        socket.setsockopt(zmq.LINGER, -1)
