"""Errors meant for the person at the terminal, and the exit codes they become."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, NoReturn

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


class UserError(Exception):
    """Something the user can put right: the message says what is wrong, where, and what to do."""


def nearest(name: str, known: list[str]) -> str:
    """A hint naming the known word closest to ``name``, or all of them where none is close."""
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known are: {', '.join(sorted(known))}"


def run_main(main: Callable[[], Any]) -> NoReturn:
    """Run a program and end the process with its exit code; bad input ends it without a traceback.

    The exit code is what ``main`` returns, if that is a whole number, else 0.

    Under ``torchrun`` each process meets the same bad input. The first one speaks; the others wait
    long enough to be ended with it, and speak only if the trouble is theirs alone.
    """
    try:
        code = main()
        sys.exit(code if isinstance(code, int) else 0)
    except UserError as error:
        _end_with(str(error))
    except OSError as error:  # a full disk, a folder that may not be written to
        _end_with(file_trouble(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        sys.exit(EXIT_INTERRUPTED)


def file_trouble(error: OSError) -> str:
    """What the file system refused, in a line."""
    if error.strerror is None:
        return f"a file could not be written: {error}"
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


def _end_with(message: str) -> NoReturn:
    if int(os.environ.get("RANK", "0")) > 0:
        time.sleep(5)
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(EXIT_USER_ERROR)
