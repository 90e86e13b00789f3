"""Processes to kill: one is started, imports everything once, and forks a fresh child for each job.

A child has one thread at its start, as a new interpreter has, and costs milliseconds. It and the test speak
in lines of JSON over a socket. Run as a script this module is the process that forks; imported, it is the way
to it.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

PATIENCE_S = 60.0
SCENES = Path(__file__).with_name("scenes.py")


class Channel:
    """One end of the line between a child and its test."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._lines = end.makefile("rb")

    def tell(self, message: object) -> None:
        """Send a message; it is with the other side when this returns."""
        self._end.sendall(json.dumps(message).encode() + b"\n")

    def hear(self) -> Any:
        """Wait for a message; None when the other side is gone."""
        line = self._lines.readline()
        return json.loads(line) if line.endswith(b"\n") else None

    def close(self) -> None:
        self._lines.close()
        self._end.close()


class Child(Channel):
    """A forked process that does one job."""

    def __init__(self, end: socket.socket, pid: int) -> None:
        super().__init__(end)
        end.settimeout(PATIENCE_S)
        self.pid = pid
        self._gone = os.pidfd_open(pid)
        self.tell("go")  # now that its end will not be missed

    def result(self) -> Any:
        """Wait for what the job returns, and for the end of its process."""
        message = self.hear()
        while message is not None and "result" not in message and "error" not in message:
            message = self.hear()
        self.wait()
        if message is None:
            raise AssertionError("the child died before it had a result")
        if "error" in message:
            raise AssertionError(f"in the child:\n{message['error']}")
        return message["result"]

    def kill(self) -> list[Any]:
        """SIGKILL it; return what it had said and nobody had heard. Nothing happens to one that has ended."""
        if self._gone < 0:
            return []
        with suppress(ProcessLookupError):  # it has ended by itself
            signal.pidfd_send_signal(self._gone, signal.SIGKILL)
        return self.last_words()

    def last_words(self) -> list[Any]:
        """Wait for its end; return what it had said and nobody had heard."""
        words: list[Any] = []
        while (message := self.hear()) is not None:
            words.append(message)
        self.wait()
        return words

    def dying_words(self, call: int) -> list[Any]:
        """Wait for its end, as `last_words`, and check that it died at this call of its own, before it had a result.

        It may have one where it makes fewer calls, by what the result says of them.
        """
        words = self.last_words()
        for word in words:
            assert "error" not in word, f"in the child, which was to die at call {call}:\n{word['error']}"
            if "result" in word:
                made = word["result"]["calls"] if isinstance(word["result"], dict) else word["result"]
                assert 0 < made < call, (
                    f"the child lives: it made {made} calls, and was to die at call {call}"
                )
        return words

    def wait(self) -> None:
        """Wait until the process is gone, and with it its locks."""
        if self._gone >= 0:
            ended, _, _ = select.select([self._gone], [], [], PATIENCE_S)
            assert ended, "the child does not end"
            os.close(self._gone)
            self._gone = -1
        self.close()


class Zygote:
    """The process that forks the children.

    ``jobs`` is the module that has what they do, ``shim`` a library between them and the disk: see `shim`.
    """

    def __init__(self, jobs: Path = SCENES, shim: Path | None = None) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, __file__, str(theirs.fileno()), str(jobs)]
        environment = {**os.environ, **({} if shim is None else {"LD_PRELOAD": str(shim)})}
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)
        theirs.close()
        self._control.settimeout(PATIENCE_S)
        assert self._control.recv(100) == b"ready", "the zygote did not start"

    def start(self, job: str, **arguments: object) -> Child:
        """Fork a child that does ``<jobs>.<job>(channel, **arguments)``."""
        ours, theirs = socket.socketpair()
        socket.send_fds(self._control, [json.dumps([job, arguments]).encode()], [theirs.fileno()])
        theirs.close()
        return Child(ours, int(self._control.recv(100)))

    def call(self, job: str, **arguments: object) -> Any:
        """Do a job in a child and return its result."""
        return self.start(job, **arguments).result()

    def close(self) -> None:
        self._control.close()
        self._process.wait(PATIENCE_S)


def call_in_child(job: Callable[..., Any], **arguments: object) -> Any:
    """Fork once more, from within a job that has started no threads, and return the result."""
    ours, theirs = socket.socketpair()
    pid = _fork(job, arguments, theirs, ours)
    theirs.close()
    try:
        return Child(ours, pid).result()
    finally:
        os.waitpid(pid, 0)


def last_words_of_child(job: Callable[..., Any], **arguments: object) -> list[Any]:
    """Fork as `call_in_child` does, for a job that dies; return what it said."""
    ours, theirs = socket.socketpair()
    pid = _fork(job, arguments, theirs, ours)
    theirs.close()
    try:
        return Child(ours, pid).last_words()
    finally:
        os.waitpid(pid, 0)


def mount_small_disk(folder: Path, size: int) -> None:
    """Mount an empty disk of this size there, for this process and its children only.

    Raises
    ------
    OSError
        Neither root nor a user namespace may mount here.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    new_namespaces, private = 0x00020000, (1 << 18) | (1 << 14)
    uid, gid = os.getuid(), os.getgid()
    if uid != 0:
        new_namespaces |= 0x10000000
    _checked(libc.unshare(new_namespaces))
    if uid != 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    _checked(libc.mount(b"none", b"/", None, private, None))
    _checked(libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, f"size={size}".encode()))


def remount_read_only(folder: Path) -> None:
    """Let nothing be written below a mount of ours any more."""
    libc = ctypes.CDLL(None, use_errno=True)
    read_only, remount = 1, 32
    _checked(libc.mount(b"tmpfs", os.fsencode(folder), None, remount | read_only, None))


def obey_permissions() -> None:
    """Give up root's right to write what the permissions of a file forbid. Before there is any thread."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    _checked(libc.capget(header, sets))
    dac_override, dac_read_search = 1 << 1, 1 << 2
    sets[0] &= ~(dac_override | dac_read_search)
    _checked(libc.capset(header, sets))


def _checked(returned: int) -> None:
    if returned != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


# -- in the process that forks -------------------------------------------------------------------------------


def serve(control: socket.socket, jobs: Path) -> None:
    """Fork a child for each job that comes, until nobody can send one any more."""
    sys.path[:0] = [str(jobs.parent), str(jobs.parents[1])]
    scenes = import_module(jobs.stem)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    control.send(b"ready")
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, 1 << 16, 1)
        if not request:
            return
        name, arguments = json.loads(request)
        end = socket.socket(fileno=descriptors[0])
        pid = _fork(getattr(scenes, name), arguments, end, control)
        end.close()
        control.send(str(pid).encode())


def _fork(
    job: Callable[..., Any], arguments: Mapping[str, Any], end: socket.socket, not_theirs: socket.socket
) -> int:
    pid = os.fork()
    if pid:
        return pid
    not_theirs.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    warnings.simplefilter("error")
    sys.dont_write_bytecode = True  # which is no step of what is tested
    logging.disable()  # bluesky and ophyd log every failure we make
    channel = Channel(end)
    channel.hear()
    try:
        channel.tell({"result": job(channel, **arguments)})
    except BaseException:
        channel.tell({"error": traceback.format_exc()})
    finally:
        os._exit(0)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), Path(sys.argv[2]))
