"""Errors meant for the person at the terminal, and the exit codes they become."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, NoReturn

from adapter4rec.utils.processes import end_with_starter, interruptible

EXIT_USER_ERROR = 2


class UserError(Exception):
    """Something the user can put right: the message says what is wrong, where, and what to do."""


def nearest(name: str, known: list[str]) -> str:
    """A hint naming the known word closest to ``name``, or all of them where none is close."""
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known are: {', '.join(sorted(known))}"


def run_main(main: Callable[[], Any], *, one_of_several: bool = False) -> NoReturn:
    """Run a program and end the process with its exit code; bad input ends it without a traceback.

    SIGTERM and SIGHUP end it as Ctrl-C does, with exit code 128 + the signal's number.

    Args:
        main: the program; the exit code is what it returns, if that is a whole number, else 0.
        one_of_several: torchrun may have started this process beside others, which meet the same bad input.
            The first one reports it. The others wait long enough to be ended with it, and report only what
            they alone have met.
    """
    first = not one_of_several or os.environ.get("RANK", "0") == "0"
    try:
        with interruptible():
            end_with_starter()
            code = main()
        sys.exit(code if isinstance(code, int) else 0)
    except UserError as error:
        _end_with(str(error), first)
    except OSError as error:  # a full disk, a folder that may not be written to
        _end_with(file_trouble(error), first)
    except KeyboardInterrupt as error:
        number = getattr(error, "signal", signal.SIGINT)
        if first:
            print(f"interrupted by {number.name}", file=sys.stderr, flush=True)
        sys.exit(128 + number)


def file_trouble(error: OSError) -> str:
    """What the file system refused, in a line."""
    if error.strerror is None:
        return f"a file could not be written: {error}"
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


def _end_with(message: str, first: bool) -> NoReturn:
    if not first:
        time.sleep(5)
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(EXIT_USER_ERROR)
