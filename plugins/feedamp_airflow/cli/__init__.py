"""The `feedamp` command. Importing it imports neither Airflow nor the core; each command imports what it needs."""

import os
import sys


def main(argv: list[str] | None = None) -> int | None:
    """Runs one command. Exit code: 0 done, 1 something requires action or was refused, 2 usage or configuration."""
    given = sys.argv[1:] if argv is None else argv
    if given[:1] == ["sandbox"]:
        from feedamp_sandbox.command import main as sandbox

        return sandbox(given[1:])
    if argv is None:  # run as a program, so Airflow is not configured yet
        _open_closed_streams()
        os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")
    from feedamp_airflow.cli.commands import parser

    command_line = parser()
    if "_ARGCOMPLETE" in os.environ:  # the shell asks what may follow, and reads no other output
        import argcomplete

        argcomplete.autocomplete(command_line)
    arguments = command_line.parse_args(given)
    from feedamp_airflow.cli.running import run

    return run(arguments)


def _open_closed_streams() -> None:
    """Gives a process that was started without standard streams ones that are empty; database files would take their place."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
