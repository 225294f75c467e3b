"""Child processes: a clean environment, forwarded signals, the exit code, and no orphans."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

_TORCHRUN_NAMES = {
    "RANK",
    "LOCAL_RANK",
    "GROUP_RANK",
    "ROLE_RANK",
    "ROLE_NAME",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_WORLD_SIZE",
    "ROLE_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
}
_TORCHRUN_PREFIXES = ("TORCHELASTIC_", "PET_")
"""What torchrun sets for its workers, and the variables that it takes its own options from."""
_STARTER = "ADAPTER4REC_STARTER"
_REPEATED = 1.0
"""Seconds in which a second signal counts as the first: a job scheduler signals parent and child."""
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
INTERRUPTED_CODES = [128 + number for number in _SIGNALS]
"""Exit codes of programs that a signal asked to end."""

Handler = Callable[[int, FrameType | None], None]


class Interrupted(KeyboardInterrupt):
    """SIGINT, SIGTERM or SIGHUP asked this process to end.

    Attributes:
        signal: its number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does.

    Raises:
        Interrupted: one of these signals came.
    """
    received: list[int] = []
    last = float("-inf")

    def interrupt(number: int, _: FrameType | None) -> None:
        nonlocal last
        received.append(number)
        now = time.monotonic()
        if now - last > _REPEATED:
            last = now
            raise Interrupted(number)

    with _handled(interrupt):
        try:
            yield
        except Exception:  # as an ImportError where the signal came while an extension module was loaded
            if received:
                raise Interrupted(received[0]) from None
            raise


@contextmanager
def _handled(handler: Handler) -> Iterator[None]:
    """Handle signals, except those that the process was told to ignore, as by nohup."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {number: there for number, there in before.items() if there != signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, there in before.items():
            signal.signal(number, there)


def child_environment() -> dict[str, str]:
    """The environment of a child process: this one's, without the variables of another job's torchrun."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in _TORCHRUN_NAMES and not name.startswith(_TORCHRUN_PREFIXES)
    }
    return environment | {_STARTER: str(os.getpid())}


def start(command: Sequence[str], **options: Any) -> subprocess.Popen:
    """Start a child process in a session of its own, so that Ctrl-C at the terminal reaches it only once.

    Args:
        command: program and arguments.
        options: of :class:`subprocess.Popen`; the environment is :func:`child_environment` by default.
    """
    return subprocess.Popen(command, **{"env": child_environment(), "start_new_session": True} | options)


def run(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess:
    """Run a child process to its end. SIGINT, SIGTERM and SIGHUP are forwarded to it.

    Args:
        command: program and arguments.
        options: as of :func:`start`.

    Returns:
        With the exit code as a shell gives it: 128 + n where signal n ended the child.

    Raises:
        SystemExit: a signal was forwarded. This program ends after the child, with the child's exit code.
    """
    received: list[int] = []
    children: list[subprocess.Popen] = []

    def forward(number: int, _: FrameType | None) -> None:
        received.append(number)
        for child in children:
            child.send_signal(number)

    with _handled(forward):
        child = start(command, **options)
        children.append(child)
        if received:  # before there was a child to forward it to
            child.send_signal(received[-1])
        stdout, stderr = child.communicate()
    code = exit_code(child.returncode)
    if received:
        raise SystemExit(code or 128 + received[0])
    return subprocess.CompletedProcess(command, code, stdout, stderr)


def exit_code(returned: int) -> int:
    """The exit code of a process as a shell gives it: 128 + n where signal n ended it."""
    return 128 - returned if returned < 0 else returned


def end_with_starter() -> None:
    """Send this process SIGTERM when the launcher that started it no longer exists.

    A launcher that was killed by SIGKILL cannot forward a signal.
    """
    starter = os.environ.get(_STARTER)
    if starter is None or os.name != "posix":
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent and _exists(int(starter)):
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
