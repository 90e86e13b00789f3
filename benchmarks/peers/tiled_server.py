"""TiledWriter of bluesky-tiled-plugins, into a Tiled server of its own on the loopback, by HTTP."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["tiled_client", "tiled_writer"]

API_KEY = "benchmark"
PATIENCE_S = 60.0


@contextmanager
def tiled_client(folder: Path) -> Iterator[Any]:
    """Run a server that keeps its catalogue and arrays in ``folder``; give a client of it."""
    import httpx
    from tiled.client import from_uri

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    places = ["-w", str(folder / "data"), "-w", f"duckdb:///{folder / 'tables.duckdb'}"]
    command = ["serve", "catalog", str(folder / "catalog.db"), "--init", *places]
    (folder / "data").mkdir(parents=True)
    server = subprocess.Popen(
        [sys.executable, "-m", "tiled", *command, "--api-key", API_KEY, "--port", str(port)],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "TILED_LOG_LEVEL": "ERROR"},
    )
    try:
        until_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                httpx.get(f"{url}/healthz").raise_for_status()
                break
            except httpx.HTTPError:
                if time.monotonic() > until_s or server.poll() is not None:
                    raise
                time.sleep(0.1)
        yield from_uri(url, api_key=API_KEY)
    finally:
        server.terminate()
        server.wait()


@contextmanager
def tiled_writer(client: Any, **settings: Any) -> Iterator[Any]:
    """Give a TiledWriter, by default with its own settings: all frames are kept in memory and sent at stop."""
    from bluesky_tiled_plugins import TiledWriter

    yield TiledWriter(client, **settings)
