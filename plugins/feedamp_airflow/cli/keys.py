"""`feedamp key rotate`."""

import argparse
from dataclasses import asdict

from feedamp.resources import Resources
from feedamp.rules.failure_summary import counted, named
from feedamp.state.token_cipher import add_key, keep_newest_key, key_file_of
from feedamp.steps.rotate_keys import Rotation, rotate
from feedamp_airflow.cli.output import Output
from feedamp_airflow.cli.running import DONE, MISUSED, REFUSED, opened_resources
from feedamp_airflow.config import read_options
from feedamp_airflow.moments import moment

_PLACES = {
    "data_keys": "data key",
    "grants": "grant",
    "other_grants": "kept grant",
    "journal": "token pair of the journal",
}


def rotate_keys(given: argparse.Namespace, out: Output) -> int:
    """Encrypts everything with the newest key, which it makes in a key file; removes old ones there once they may go.

    It takes no key and prints none. Safe to kill and to repeat, also by several processes at once.
    """
    uses_file, is_made = read_options().encryption_key is None, False
    if uses_file:
        with opened_resources(checks_key=True) as resources, resources.state.begin():  # one at a time
            key_file = key_file_of(_state_file(resources))
            # No process can have been restarted since a key that would be made now: a running one encrypts with the old.
            if given.restarted and len(resources.cipher.key_ids) == 1:
                out.complain(
                    f"--restarted is for a newest key that is there already, and {key_file} has one key: run it without first"
                )
                return MISUSED
            is_made = add_key(_state_file(resources))
            if is_made:
                out.complain(
                    f"a new key was made in {key_file}, which has the only copy of it: back up this file again"
                )
    with opened_resources(checks_key=True) as resources:
        done = rotate(resources.state, resources.cipher, resources.journal, all_restarted=given.restarted)
        file = key_file_of(_state_file(resources)) if uses_file else None
        is_removed = False
        if uses_file and done.older_may_go:
            with resources.state.begin():
                is_removed = keep_newest_key(_state_file(resources), resources.cipher.key_ids)
    is_complete = not (done.older or done.unreadable or done.journal_unreadable)
    if given.json:
        made = {"key_made": is_made, "key_file": file and str(file), "older_removed": is_removed}
        out.document({**asdict(done), "older_may_go": done.older_may_go, **made})
    else:
        out.say(_what_was_done(done))
        out.say(_what_may_go(done, file is not None, is_removed=is_removed))
    _complain(done, out)
    return DONE if is_complete else REFUSED


def _state_file(resources: Resources) -> str:
    return resources.state.url.database or ""


def _what_was_done(done: Rotation) -> str:
    counts = [counted(count, _PLACES[place]) for place, count in done.reencrypted.items()]
    return f"encrypted with the newest key: {', '.join(counts) if counts else 'nothing was left to do'}"


def _what_may_go(done: Rotation, uses_file: bool, *, is_removed: bool) -> str:
    where = "the key file" if uses_file else "[feedamp] encryption_key"
    if done.keys == 1:
        return (
            f"{where} has one key, with which everything is encrypted; to rotate, put a new key before it, as in NEW,OLD, in "
            "every process, and run this again"
        )
    if is_removed:
        return f"the older key was removed from {where}; keep it only with backups from before"
    if done.older_may_go:
        return f"the older key may go: remove it from {where} of every process; keep it only with backups from before"
    if done.older_stay_until is not None:
        return (
            f"the older key must stay behind the newest until {moment(done.older_stay_until)}: until then a process that began "
            "with it may still encrypt with it; run this again after that, or with --restarted once every process has been "
            "restarted"
        )
    return f"the older key must stay: {counted(done.older, 'value')} could not be encrypted with the newest"


def _complain(done: Rotation, out: Output) -> None:
    if done.older:
        out.complain(
            f"under an older key again: {counted(done.older, 'value')} of {done.values}; a process with that key as its first one "
            "stores tokens. Restart it with the newest key, and run this again."
        )
    if done.unreadable:
        out.complain(
            f"under a key that is not there: tokens of {counted(len(done.unreadable), 'seller')} ({named(done.unreadable)}); put that "
            "key behind the newest, and run this again, or connect these sellers again."
        )
    if done.journal_unreadable:
        out.complain(
            f"under a key that is not there: {counted(done.journal_unreadable, 'token pair')} of the journal; put that key behind "
            "the newest, and run this again."
        )
