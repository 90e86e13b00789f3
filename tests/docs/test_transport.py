"""The page about the writer in another process is true: its three processes run as they stand there."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from gently_bluesky import Store
from gently_bluesky.sim import SimulatedDiSPIM, acquire_volume

HERE = Path(__file__).parents[2]
PAGE = (HERE / "docs" / "transport.md").read_text("utf-8")


def free_ports() -> tuple[int, int]:
    """Return two ports of loopback on which nobody listens."""
    with closing(socket.socket()) as one, closing(socket.socket()) as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def test_three_processes_of_the_page_store_a_volume(tmp_path: Path) -> None:
    came_in, went_out = free_ports()
    page = PAGE.replace("5577", str(came_in)).replace("5578", str(went_out))
    proxy, writer, session = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    stored = "    dispatcher.subscribe(lambda name, doc: print(name, flush=True), 'stop')\n    dispatcher.start()\n"
    command = [sys.executable, "-u", "-c"]
    writer = writer.replace("    dispatcher.start()\n", stored)
    with (
        subprocess.Popen([*command, proxy], cwd=tmp_path) as of_proxy,
        subprocess.Popen(
            [*command, writer], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as of_writer,
    ):
        try:
            acquire(session, of_writer)
        finally:
            for process in (of_writer, of_proxy):
                process.terminate()
    with Store(tmp_path / "dispim", mode="r") as store:
        assert store[-1].status == "complete"
        assert store[-1]["view_a"].shape == (2, 4, 32, 32)


def acquire(session: str, writer: Any) -> None:
    """Run what the page says of the session, and a plan, once the writer hears it."""
    import selectors

    names: dict[str, Any] = {}
    exec(session, names)
    engine = names["RE"]
    try:
        with selectors.DefaultSelector() as said:
            said.register(writer.stderr, selectors.EVENT_READ)
            while not said.select(0.05):  # it complains of what is no start document
                names["publisher"]("start", {"hello": 1})
        engine(acquire_volume(SimulatedDiSPIM(size=32, n_slices=4), num=2))
        assert writer.stdout.readline() == "stop\n"
    finally:
        names["publisher"].close()
        engine.loop.call_soon_threadsafe(engine.loop.stop)
        engine._th.join(10)
        engine.loop.close()
