"""`feedamp sellers remove|erase`, `feedamp orders erase`: a seller leaves, or personal data goes permanently."""

from __future__ import annotations

import argparse
from typing import Any

from feedamp.errors import FeedAmpError
from feedamp.rules.failure_summary import counted, named
from feedamp.steps import depart
from feedamp.steps.depart import Held
from feedamp_airflow.cli.output import Output
from feedamp_airflow.cli.running import DONE, REFUSED, ask, opened_resources, user_of


def remove(given: argparse.Namespace, out: Output) -> int:
    """Drops a seller's grants and its registration; its orders, events, findings and runs stay. Safe to repeat."""
    seller = given.seller
    with opened_resources() as resources:
        held = depart.look(resources, seller)
        if "sellers" not in held.rows:
            if given.yes:  # a removal that was cut short may have left pairs in the token journal
                depart.remove(resources, seller)
            raise FeedAmpError(f"There is no seller {seller}; `feedamp sellers list` names all.")
        drops = "this drops its grant; " if held.has_grant else ""
        out.say(
            f"seller {seller}: {drops}nothing will be refreshed, read or sent for it any more{_fate(held)}"
        )
        out.say("Its orders, events, findings and runs stay. `feedamp sellers add` registers it again.")
        if not given.yes:
            ask(f"Remove seller {seller}?")
        depart.remove(resources, seller)
    out.say(f"seller {seller}: removed")
    return DONE


def erase(given: argparse.Namespace, out: Output) -> int:
    """Erases all that is stored of a seller and its orders or, with a number, of one order. Safe to repeat.

    Shows what would go, asks, erases, and names what the operator has to remove; 1 if there is any of that, or nothing was
    found.
    """
    number, what = given.number, f"seller {given.seller}"
    if number is not None:
        what = f"order {number} of {what}"
    tell = out.complain if given.json else out.say
    with opened_resources() as resources:
        held = depart.look(resources, given.seller, number)
        rows = ", ".join(f"{name} {count}" for name, count in held.rows.items()) or "nothing"
        tell(f"{what}: the state has {rows}{_fate(held)}")
        if held.was_erased:
            tell(f"{what} was erased before; everything is searched again.")
        elif not held.rows:
            tell("Check whether it is spelled right: what is erased can never be stored again.")
        if given.dry_run:
            if given.json:
                out.document({"dry_run": True, "state": held.rows, **_open(held)})
            tell("Lake, warehouse and the files of the inbox are searched when it is erased.")
            return DONE
        if not given.yes:
            ask(f"Erase {what} from all stores, permanently?")
        done = depart.erase(resources, given.seller, number, asked_by=user_of(out))
    found = held.was_found or bool(held.rows) or done.may_have_found
    if given.json:
        out.document(
            {
                "dry_run": False,
                "found": found,
                **done.counts,
                "unfinished": done.unfinished,
                "left": done.left,
                **_open(held),
                "inbox_files": done.inbox_files,
                "unreadable_files": done.unreadable_files,
            }
        )
    else:
        for store, counts in done.counts.items():
            said = ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "nothing"
            out.say(f"{store}: {said}")
        for store, left in done.left.items():
            out.say(f"{store}: {left}")
        if found and not done.unfinished:
            out.say(f"{what}: erased")
    if not found:
        out.complain(
            f"{what}: nothing was found. Is it spelled right? Its mark stays, so it can never be stored."
        )
        return REFUSED
    for store, why in done.unfinished.items():
        out.complain(f"{store}: unfinished, run the command again: {why}")
    if done.inbox_files:
        out.complain(
            f"The inbox still has it: remove it from {counted(len(done.inbox_files), 'file')}, or the files: "
            f"{named(done.inbox_files)}. Then run the command again."
        )
    if done.unreadable_files:
        out.complain(f"These files of the inbox could not be searched: {named(done.unreadable_files)}.")
    return REFUSED if done.unfinished or done.inbox_files or done.unreadable_files else DONE


def _open(held: Held) -> dict[str, Any]:
    return {"orders_to_place": held.to_place, "orders_open_at_feedamp": held.open_at_feedamp}


def _fate(held: Held) -> str:
    """What becomes of orders that are not done, as the end of a sentence; empty if all are."""
    said = []
    if held.to_place:
        said.append(f"{counted(held.to_place, 'order')} that waited will not be sent")
    if held.open_at_feedamp:
        order = counted(held.open_at_feedamp, "order")
        said.append(f"{order} that FeedAMP may have will neither be read nor closed")
    return "".join(f"; {one}" for one in said)
