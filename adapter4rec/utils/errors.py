"""User-facing errors and their exit codes."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, NoReturn

from adapter4rec.utils.plain_text import escape_output
from adapter4rec.utils.processes import end_with_starter, interruptible

EXIT_USER_ERROR = 2
_LONGEST_REASON = 300
_LONGEST_LINE = 2_000


class UserError(Exception):
    """An error the user can fix. The message names the problem, the place and the fix."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: the message, as at a terminal. IPython calls this."""
        return [f"error: {self}"]


def nearest(name: str, known: list[str]) -> str:
    """A hint for an unknown name: the closest known name, or the list of all names."""
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"choose from: {', '.join(sorted(known))}"


def run_main(main: Callable[[], Any], *, one_of_several: bool = False) -> NoReturn:
    """Run a program and exit with its exit code. User errors are printed without a traceback.

    SIGTERM and SIGHUP are handled like Ctrl-C; the exit code is 128 + the signal number.

    Args:
        main: the program. If it returns an int, that is the exit code; otherwise the exit code is 0.
        one_of_several: set if torchrun may have started several processes, which usually fail with the same
            error. Rank 0 prints it. Other ranks wait for torchrun to end them, and print their error only
            if they are still running after that.
    """
    first = not one_of_several or os.environ.get("RANK", "0") == "0"
    escape_output()
    try:
        with interruptible():
            end_with_starter()
            code = main()
        sys.exit(code if isinstance(code, int) else 0)
    except SystemExit as error:
        if not isinstance(error.code, int):
            raise
        _exit(error.code, one_of_several)
    except (UserError, OSError) as error:
        if not first:
            time.sleep(10)
        print(f"error: {message_of(error)}", file=sys.stderr, flush=True)
        _exit(EXIT_USER_ERROR, one_of_several)
    except Exception:
        if not _has_others(one_of_several):
            raise
        traceback.print_exc()
        _exit(1, one_of_several)
    except KeyboardInterrupt as error:
        number = getattr(error, "signal", signal.SIGINT)
        if first:
            print(f"interrupted by {number.name}", file=sys.stderr, flush=True)
        _exit(128 + number, one_of_several)


def _has_others(one_of_several: bool) -> bool:
    return one_of_several and os.environ.get("WORLD_SIZE", "1") != "1"


def _exit(code: int, one_of_several: bool) -> NoReturn:
    """Exit; one of several processes without the interpreter's finalisation.

    Finalisation ends threads that are in a call of torch, as when a process is interrupted while it waits for
    the others. That aborts the process ("terminate called without an active exception"), or blocks it.
    """
    if _has_others(one_of_several):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def message_of(error: UserError | OSError) -> str:
    """The message of a user error or of a file system error, such as a full disk or a read-only folder.

    Of lines that are longer than a screen, because they quote a file, the middle is left out.
    """
    return "\n".join(map(_shortened, _message_of(error).split("\n")))


def _shortened(line: str) -> str:
    half = _LONGEST_LINE // 2
    return line if len(line) <= _LONGEST_LINE else f"{line[:half]} … {line[-half:]}"


def _message_of(error: UserError | OSError) -> str:
    if isinstance(error, UserError):
        return str(error)
    if error.strerror is None:
        return f"cannot write file: {error}"
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


def reason_of(error: BaseException) -> str:
    """Type and message of an exception of a library, as one line for a message."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:_LONGEST_REASON]}"
