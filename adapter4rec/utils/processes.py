"""Child processes: clean environment, signal forwarding, exit codes, no orphans."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

RESTARTED = "ADAPTER4REC_RESTARTED"
"""Environment variable that tells processes of a new torchrun that it continues an earlier one."""
_TORCHRUN = re.compile(
    rf"{RESTARTED}|(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)|(TORCHELASTIC|PET)_.*"
)
"""Environment variables that torchrun sets for its workers or reads its options from."""
_STARTER = "ADAPTER4REC_STARTER"
_SPIN_COUNT = "1000"
"""Some microseconds, more than between two parallel regions of a training step (docs/performance.md)."""
_REPEATED = 1.0
"""Seconds in which repeated signals are ignored: a job scheduler may signal both parent and child."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED_CODES = [128 + number for number in _SIGNALS]
"""Exit codes of programs that were interrupted by a signal."""

Handler = Callable[[int, FrameType | None], None]


class Interrupted(KeyboardInterrupt):
    """SIGINT, SIGTERM or SIGHUP was received.

    Attributes:
        signal: the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


@contextmanager
def interruptible() -> Iterator[None]:
    """Handle SIGTERM and SIGHUP like Ctrl-C.

    Raises:
        Interrupted: a signal was received.
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

    def interrupt_again(dropped: sys.UnraisableHookArgs) -> None:
        nonlocal last
        if not isinstance(dropped.exc_value, Interrupted):
            if not received:  # after a signal, destructors of half-built objects fail, too
                shown(dropped)
            return
        last = float("-inf")
        threading.Timer(0.1, os.kill, (os.getpid(), dropped.exc_value.signal)).start()

    # Python drops an exception that the handler raises in a destructor, such as that of a data loader.
    shown, sys.unraisablehook = sys.unraisablehook, interrupt_again
    try:
        with _handled(interrupt):
            yield
    except BaseException as error:
        if received:
            _destroy_locals(error)  # now, while their errors are not shown
            if isinstance(error, Exception):  # an ImportError, if a module was being imported
                raise Interrupted(received[0]) from None
        raise
    finally:
        sys.unraisablehook = shown


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Block SIGINT, SIGTERM and SIGHUP, also in processes that are forked in the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def outlive_signals(seconds: int) -> None:
    """End this process only ``seconds`` after SIGINT, SIGTERM or SIGHUP; unblock these signals."""
    for number in _SIGNALS:
        signal.signal(number, lambda *_: signal.alarm(seconds))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


@contextmanager
def signals_deferred() -> Iterator[Callable[[], int]]:
    """Defer SIGINT, SIGTERM and SIGHUP to the end of the block. A second signal ends the process at once.

    Yields:
        A function that returns the signal that was received, or 0.

    Raises:
        Interrupted: at the end of the block, if a signal was received and its handler raises this.
        SystemExit: a second signal was received, or an error occurred after the first, usually because
            another process of the run has ended.
    """
    received: list[int] = []
    first = float("-inf")

    def note(number: int, _: FrameType | None) -> None:
        nonlocal first
        if received and time.monotonic() - first > _REPEATED:
            raise SystemExit(128 + number)
        first = first if received else time.monotonic()
        received.append(number)

    if threading.current_thread() is not threading.main_thread():  # signals are handled in the main thread
        yield lambda: 0
        return
    try:
        with _handled(note):
            yield lambda: received[0] if received else 0
    except Exception:
        if received:
            raise SystemExit(128 + received[0]) from None
        raise
    if received:
        signal.raise_signal(received[0])


def _destroy_locals(error: BaseException | None) -> None:
    """Clear the local variables that an exception and its contexts keep alive."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


@contextmanager
def _handled(handler: Handler) -> Iterator[None]:
    """Install a signal handler, except for ignored signals (nohup)."""
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {number: handler for number, handler in handlers.items() if handler != signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def child_environment() -> dict[str, str]:
    """The environment for a child process: a copy without the variables of an enclosing torchrun.

    Threads of GNU's OpenMP, which PyTorch uses on Linux, wait in a loop for their next task and take the time
    of other processes. ``GOMP_SPINCOUNT`` makes them sleep earlier, unless the user has set a policy.
    """
    kept = {name: value for name, value in os.environ.items() if not _TORCHRUN.fullmatch(name)}
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & kept.keys():
        kept["GOMP_SPINCOUNT"] = _SPIN_COUNT
    return kept | {_STARTER: str(os.getpid())}


def start(
    command: Sequence[str], env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.Popen[Any]:
    """Start a child process in a new session, so that Ctrl-C at the terminal reaches it only once.

    Args:
        command: program and arguments.
        env: environment; default: :func:`child_environment`.
        options: further options of :class:`subprocess.Popen`.
    """
    child: subprocess.Popen[Any] = subprocess.Popen(
        command, env=env or child_environment(), start_new_session=True, **options
    )
    return child


def run(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run a child process and wait for it. SIGINT, SIGTERM and SIGHUP are forwarded to it.

    Args:
        command: program and arguments.
        options: as for :func:`start`.

    Returns:
        The completed process; its exit code is as in :func:`exit_code`.

    Raises:
        SystemExit: a signal was forwarded and the child has ended; the exit code is the child's.
    """
    received: list[int] = []
    children: list[subprocess.Popen[Any]] = []

    def forward(number: int, _: FrameType | None) -> None:
        received.append(number)
        for child in children:
            child.send_signal(number)

    with _handled(forward):
        child = start(command, **options)
        children.append(child)
        if received:  # before the child was started
            child.send_signal(received[-1])
        stdout, stderr = child.communicate()
    code = exit_code(child.returncode)
    if received:
        raise SystemExit(code or 128 + received[0])
    return subprocess.CompletedProcess(command, code, stdout, stderr)


def exit_code(returned: int) -> int:
    """The exit code in shell convention: 128 + n for a process ended by signal n."""
    return 128 - returned if returned < 0 else returned


def end_with_starter() -> None:
    """Send SIGTERM to this process when its launcher has ended.

    A launcher killed by SIGKILL cannot forward the signal.
    """
    starter = os.environ.get(_STARTER)
    if starter is None:
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
