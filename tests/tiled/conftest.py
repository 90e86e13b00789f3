"""A Tiled server of its own for each module: a real process, on a free port of the loopback, with an API key."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tiled.client import from_uri

from gently_bluesky.tiled import register

API_KEY = "secret"
ADAPTERS = {
    "application/x-zarr": "gently_bluesky.tiled:StoredZarrAdapter",
    "multipart/related;type=image/tiff": "gently_bluesky.tiled:StoredTiffAdapter",
}


@dataclass
class Server:
    """A running server, and the folder of the stores that it may read."""

    url: str
    process: subprocess.Popen[str]
    stores: Path

    def get(self, path: str, **params: str) -> httpx.Response:
        """Ask as any program does that knows HTTP and nothing else."""
        return httpx.get(
            f"{self.url}/api/v1/{path}", params=params, headers={"Authorization": f"Apikey {API_KEY}"}
        )

    def part(self, path: str, cut: str, like: np.ndarray) -> np.ndarray:
        """Return a part of an array, by its slice, as raw bytes."""
        answer = self.get(f"array/full/{path}", slice=cut, format="application/octet-stream")
        answer.raise_for_status()
        return np.frombuffer(answer.content, like.dtype).reshape(like.shape)


@contextmanager
def serving(config: Path, stores: Path) -> Iterator[Server]:
    """Run a server with this configuration until it is not needed any more."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tiled", "serve", "config", str(config), "--host", "127.0.0.1", "--port", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TILED_SINGLE_USER_API_KEY": API_KEY, "NO_COLOR": "1"},
    )
    assert process.stderr
    said: list[str] = []
    try:
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"running on.*?(http://127\.0\.0\.1:\d+)", line):
                break
        else:
            pytest.fail("".join(said))
        rest = threading.Thread(target=said.extend, args=(process.stderr,), name="pytest-tiled-log")
        rest.start()
        yield Server(found[1], process, stores)
    finally:
        process.terminate()
        process.wait()
    rest.join()
    process.stderr.close()


def write_config(folder: Path, stores: Path, adapters: dict[str, str]) -> Path:
    args: dict[str, Any] = {
        "uri": f"sqlite:///{folder / 'catalog.db'}",
        "init_if_not_exists": True,
        "writable_storage": [f"duckdb:///{folder / 'tables.duckdb'}"],
        "readable_storage": [str(stores)],
        "adapters_by_mimetype": adapters,
    }
    config = folder / "tiled.yml"
    trees = [{"path": "/", "tree": "catalog", "args": args}]
    exports = {"BlueskyRun": {"application/json-seq": "bluesky_tiled_plugins.exporters:json_seq_exporter"}}
    said = {"trees": trees, "expose_raw_assets": False, "media_types": exports}
    config.write_text(json.dumps(said))  # JSON is YAML
    return config


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with our adapters."""
    folder = tmp_path_factory.mktemp("tiled")
    stores = folder / "stö res 100%"
    stores.mkdir()
    with serving(write_config(folder, stores, ADAPTERS), stores) as running:
        yield running


@pytest.fixture(scope="module")
def plain_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with nothing of ours."""
    folder = tmp_path_factory.mktemp("plain")
    stores = folder / "stores"
    stores.mkdir()
    with serving(write_config(folder, stores, {}), stores) as running:
        yield running


@pytest.fixture
def plain_config(tmp_path: Path) -> Path:
    """A configuration with nothing of ours, for a store in the test's own folder."""
    return write_config(tmp_path, tmp_path / "store", {})


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Path], Server]]:
    """Run a server with a configuration of the test's own."""
    with ExitStack() as stack:
        yield lambda config: stack.enter_context(serving(config, tmp_path))


@pytest.fixture
def connect() -> Iterator[Callable[[str], Any]]:
    """Return clients, in a process that has registered us; their connections are closed at the end."""
    register()
    with ExitStack() as stack:

        def opened(url: str) -> Any:
            client = from_uri(url, api_key=API_KEY)
            stack.callback(client.context.http_client.close)
            return client

        yield opened


@pytest.fixture
def client(server: Server, connect: Callable[[str], Any]) -> Any:
    return connect(server.url)


@pytest.fixture
def root(server: Server, request: pytest.FixtureRequest) -> Path:
    """A folder for a store, where the server may read."""
    return server.stores / re.sub(r"\W", "_", request.node.name)
