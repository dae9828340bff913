"""`feedamp read-only on|off`: the switch of the emergency stop."""

import argparse

from feedamp.errors import ConfigurationError
from feedamp.state import read_only
from feedamp_airflow.cli.output import Output
from feedamp_airflow.cli.running import DONE, REFUSED, opened_resources


def switch(given: argparse.Namespace, out: Output) -> int:
    """Turns the switch and says what is sent from now on; 1 if option `read_only` still stops everything. Safe to repeat."""
    if given.to not in ("on", "off"):
        raise ConfigurationError("Say on or off.")
    with opened_resources() as resources, resources.state.begin() as connection:
        read_only.switch(connection, on=given.to == "on", now=resources.state.now())
        stop = read_only.current(connection, by_option=resources.settings.read_only)
    if stop is None:
        out.say("Read-only is off: the next runs send what is due.")
        return DONE
    out.say(stop.sentence)
    if given.to == "on":
        out.say("Tasks under way stop within a few seconds; what FeedAMP is answering now is finished.")
    return DONE if given.to == "on" else REFUSED
