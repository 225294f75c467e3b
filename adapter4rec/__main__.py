"""The command ``adapter4rec``: its subcommands are the programs of the package.

``adapter4rec recommend …`` is ``python -m adapter4rec.recommend …``. Training needs a checkout.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from adapter4rec import __version__
from adapter4rec.utils.errors import run_main

COMMANDS = {
    "recommend": ("adapter4rec.recommend:main", "recommendations of a trained model"),
    "export": ("adapter4rec.export:main", "a trained model as a bundle for others"),
    "report": ("adapter4rec.report.__main__:main", "tables, plots and a page of the runs in ledgers"),
    "convert": ("adapter4rec.convert:main", "convert a checkpoint of the released code"),
    "merge": ("adapter4rec.merge:main", "merge an adapter into its source model"),
    "download": ("adapter4rec.download:main", "download a pretrained backbone"),
    "prepare": ("adapter4rec.datasets.command:prepare", "prepare a public data set, or any table"),
    "check": ("adapter4rec.datasets.checking:check", "check a prepared domain"),
}
"""Module and function of each subcommand, and what it does."""


def main() -> None:
    """Run the subcommand that the command line names, with the rest of the command line."""
    listed = "\n".join(f"  {name:<11}{about}" for name, (_, about) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="adapter4rec",
        description=f"commands:\n{listed}",
        epilog="adapter4rec COMMAND --help lists the options of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("command", choices=tuple(COMMANDS), metavar="COMMAND", help="one of the above")
    name = parser.parse_args(sys.argv[1:2]).command
    module, _, function = COMMANDS[name][0].partition(":")
    sys.argv = [f"adapter4rec {name}", *sys.argv[2:]]
    getattr(import_module(module), function)()


def command() -> None:
    """Entry point of the installed command."""
    run_main(main)


if __name__ == "__main__":
    command()
