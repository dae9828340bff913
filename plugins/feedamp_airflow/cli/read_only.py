"""`feedamp read-only [on|off]`: the emergency stop and its switch."""

import argparse

from feedamp.errors import ConfigurationError
from feedamp.state import read_only
from feedamp_airflow.cli.output import Output
from feedamp_airflow.cli.running import DONE, REFUSED, opened_resources, user_of


def switch(given: argparse.Namespace, out: Output) -> int:
    """Turns the switch, if told to, and says who stopped what, since when and why. Safe to repeat.

    Returns 1 if it was to be off and option `read_only` still stops everything.
    """
    to, reason = given.to, given.reason
    if to not in ("on", "off", None):
        raise ConfigurationError("Say on or off, or neither to see which it is.")
    if reason and to != "on":
        raise ConfigurationError("--reason is for `feedamp read-only on`.")
    changed = False
    with opened_resources() as resources, resources.state.begin() as connection:
        if to is not None:
            now, person = resources.state.now(), user_of(out)
            changed = read_only.switch(
                connection, on=to == "on", now=now, person=person, reason=reason or None
            )
        stop = read_only.current(connection, by_option=resources.settings.read_only)
    if stop is None:
        out.say("Read-only is off: the next runs send what is due.")
        return DONE
    is_new = changed and to == "on" and stop.since is not None
    out.say(f"Read-only is on: {read_only.UNTIL_SWITCHED_OFF}" if is_new else stop.sentence)
    if reason := out.reader.said(stop.reason, None):
        out.say(f"Reason: {reason}")
    if to == "on" and not changed:
        out.say("It was on already; who, when and why stay as they are.")
    elif to == "on":
        out.say("Tasks under way stop within a second; what FeedAMP is answering now is finished.")
    return REFUSED if to == "off" else DONE
