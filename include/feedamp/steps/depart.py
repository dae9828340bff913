"""A seller leaves, or personal data must go: what is removed or erased, in which order, and what the operator has to do.

The mark of `state/erasures.py` comes first: from then on nothing of the seller or order is stored, whatever is under way.
Each store is finished by itself, so that a process that is killed anywhere is made up for by a repeat.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import sqlalchemy as sa

from feedamp.errors import ConfigurationError, FeedAmpError
from feedamp.inbox import BadRow, InboxFile, discover, read_rows
from feedamp.order_body import values
from feedamp.order_body.reject_reasons import BadValueError
from feedamp.progress import Progress
from feedamp.resources import Resources
from feedamp.rules.erased import is_number
from feedamp.rules.order import OPEN_PHASES, Phase
from feedamp.state import departures, erasures
from feedamp.state.erasures import Store
from feedamp.state.schema import grants, orders
from feedamp.state.statements import count_rows
from feedamp.steps.erase_copies import erase_from_lake, erase_from_warehouse
from feedamp.steps.step_result import unexpected

log = logging.getLogger(__name__)
_LEFT = ("leftovers", "temporary_copies")


@dataclass(frozen=True)
class Held:
    """What the state has of a seller or an order before it goes.

    `rows`: table -> rows. `to_place`: orders that were never sent, or have a change to be sent. `open_at_feedamp`: orders
    that FeedAMP may have and that are not closed; no one here reads or closes them afterwards. `was_found`: it was erased
    before, and that erasure found something or was not finished.
    """

    rows: dict[str, int]
    has_grant: bool
    to_place: int
    open_at_feedamp: int
    was_erased: bool
    was_found: bool


@dataclass
class Erased:
    """What an erasure did: store -> what went -> how many, or why that store is unfinished.

    With the inbox files that hold the order or seller, and those that could not be searched. `left`: of a store that is done,
    what only another than this user can do.
    """

    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    unfinished: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    inbox_files: list[str] = field(default_factory=list)
    unreadable_files: list[str] = field(default_factory=list)

    @property
    def may_have_found(self) -> bool:
        """Whether there was anything of it, or not everything could be searched."""
        return bool(_is_any(self.counts) or self.unfinished or self.inbox_files or self.unreadable_files)


def look(resources: Resources, seller_id: str, mp_order_number: str | None = None) -> Held:
    """What would go. Changes nothing. Raises a ConfigurationError if no seller or order can have such an id."""
    seller_id, mp_order_number = _checked(resources, seller_id, mp_order_number)
    with resources.state.read() as connection:
        was_erased = resources.erased(connection, [(seller_id, mp_order_number)]).has(
            seller_id, mp_order_number
        )
        before = erasures.find(connection, erasures.mark(resources.cipher, seller_id, mp_order_number))
        of_seller = orders.c.seller_id == seller_id
        which = (
            of_seller
            if mp_order_number is None
            else of_seller & (orders.c.mp_order_number == mp_order_number)
        )
        may_exist = sa.and_(orders.c.phase.in_(OPEN_PHASES), orders.c.first_put_at.is_not(None))
        return Held(
            rows=departures.held(connection, seller_id, mp_order_number),
            has_grant=count_rows(connection, grants, grants.c.seller_id == seller_id) > 0,
            to_place=count_rows(connection, orders, which & (orders.c.phase == Phase.TO_PLACE)),
            open_at_feedamp=count_rows(connection, orders, which & may_exist),
            was_erased=was_erased,
            was_found=was_erased and (before is None or before.done_at is None or _is_any(before.counts)),
        )


def _is_any(counts: Mapping[str, Mapping[str, int]]) -> bool:
    """Whether anything of the seller or order went; what killed processes left is removed whoever it is of."""
    return any(count for of_store in counts.values() for name, count in of_store.items() if name not in _LEFT)


def _checked(
    resources: Resources, seller_id: str, mp_order_number: str | None = None
) -> tuple[str, str | None]:
    """The ids without blanks around them; an empty one would be found in every text.

    The number keeps its blanks if `order_number_pattern` takes it with them.
    """
    name = "seller id"
    try:
        seller_id = values.seller_id(seller_id)
        if mp_order_number is not None:
            name = "number of an order"
            bare = values.trimmed(values.key(mp_order_number))
            if not bare:
                raise BadValueError("missing", "must be there and not be empty")
            if not resources.settings.body.order_number.fullmatch(mp_order_number):
                mp_order_number = bare
    except BadValueError as error:
        raise ConfigurationError(f"The {name} {error.message}; nothing was changed.") from error
    return seller_id, mp_order_number


def remove(resources: Resources, seller_id: str) -> bool:
    """Removes a seller with its grants; returns False if it was not registered. Orders, events, findings and runs stay.

    Nothing is refreshed, read or sent for it from now on, and its orders wait until it is added again. Safe to repeat.
    Raises as `TokenJournal.pairs_of`, and a ConfigurationError if no seller can have such an id.
    """
    seller_id, _ = _checked(resources, seller_id)
    with resources.state.begin() as connection:
        gone = departures.drop_registration(connection, seller_id)
    resources.journal.drop(seller_id)
    return gone["sellers"] > 0


def erase(
    resources: Resources, seller_id: str, mp_order_number: str | None = None, *, asked_by: str | None
) -> Erased:
    """Erases a seller or one order permanently. Safe to kill and to repeat: a repeat goes through everything again.

    If a process was at work on it, this waits until that process sends nothing more (`Leases.unasked_s`). A store that
    cannot be finished now, such as one that another process uses all the time, keeps no other from it. Raises a
    ConfigurationError, before anything is changed, if no seller or order can have such an id.
    """
    seller_id, mp_order_number = _checked(resources, seller_id, mp_order_number)
    erased, state, registration = Erased(), resources.state, Counter[str]()
    with state.begin() as connection:
        mark = erasures.begin(
            connection, resources.cipher, seller_id, mp_order_number, asked_by=asked_by, now=state.now()
        )
        if mp_order_number is None:
            registration = departures.drop_registration(connection, seller_id)
    if mp_order_number is None:
        resources.journal.drop(seller_id)
    for store, erase_from in _STORES.items():
        try:
            counts = erase_from(resources, seller_id, mp_order_number)
            left = _left(resources, store)
            if store is Store.STATE:
                counts = dict(Counter(counts) + registration)  # which went before everything else
            with state.begin() as connection:
                erasures.finish(connection, mark, store, counts, now=state.now())
        except FeedAmpError as error:
            erased.unfinished[store] = str(error)
            continue
        except Exception as error:
            log.exception("The erasure from the %s has failed.", store)
            erased.unfinished[store] = f"{unexpected(error)} Repeat the command."
            continue
        erased.counts[store] = counts
        if left:
            erased.left[store] = left
    erased.inbox_files, erased.unreadable_files = _search_inbox(resources, seller_id, mp_order_number)
    return erased


def _erase_state(resources: Resources, seller_id: str, mp_order_number: str | None) -> dict[str, int]:
    counts: Counter[str] = Counter()
    leases = resources.state.leases
    with resources.state.begin() as connection:
        counts["leases"] += departures.drop_leases(connection, seller_id, mp_order_number)
    dropped_at = leases.elapsed()
    tables = departures.tables_of(mp_order_number)
    progress = Progress("state", "tables", len(tables) + 1)
    for table in tables:
        while True:
            with resources.state.begin() as connection:
                gone = departures.drop_rows(connection, table, seller_id, mp_order_number)
            counts[table.name] += gone
            if gone < departures.ROWS_DROPPED_AT_ONCE:
                break
        progress.add(1)
    with resources.state.begin() as connection:
        mentions = departures.drop_mentions(connection, seller_id, mp_order_number)
    if mentions["leases"]:  # taken again before the ledger had lost the order
        dropped_at = leases.elapsed()
    counts += mentions
    progress.add(1)
    if counts["leases"]:
        time.sleep(max(0.0, dropped_at + leases.unasked_s - leases.elapsed()))
    departures.rewrite(resources.state)
    return dict(+counts)


# In this order: the state stops what would write to the lake, and the warehouse can be rebuilt from the lake.
_STORES: dict[Store, Callable[[Resources, str, str | None], dict[str, int]]] = {
    Store.STATE: _erase_state,
    Store.LAKE: erase_from_lake,
    Store.WAREHOUSE: erase_from_warehouse,
}


def _left(resources: Resources, store: Store) -> str:
    """What the engine of a store keeps that only another user can take out; empty if there is nothing."""
    if store is Store.STATE:
        return departures.left_by_rewrite(resources.state)
    return (
        resources.warehouse.left_by_erasing()
        if store is Store.WAREHOUSE and resources.warehouse.is_there
        else ""
    )


def _search_inbox(
    resources: Resources, seller_id: str, mp_order_number: str | None
) -> tuple[list[str], list[str]]:
    """Names of the inbox files that hold the seller's order or orders, and of those that could not be searched.

    An inbox that is not there, as when it is not mounted, could not be searched. Files that the intake ignores are not.
    """
    found = discover(resources.inbox, now=resources.state.now(), settle_s=0)
    if not found.exists:
        return [], [resources.inbox.url]
    holding, unreadable = [], [*found.waiting, *found.unreadable]
    progress = Progress("inbox", "files", len(found.files))
    for file in found.files:
        try:
            if _holds(resources, file, seller_id, mp_order_number):
                holding.append(file.name)
        except (FeedAmpError, OSError):
            unreadable.append(file.name)
        progress.add(1)
    return holding, sorted(unreadable)


def _holds(resources: Resources, file: InboxFile, seller_id: str, mp_order_number: str | None) -> bool:
    """Whether a row is of the seller or order, or cannot be read and mentions it.

    Raises a FeedAmpError if no row is, but the file cannot be read to its end.
    """
    word = seller_id if mp_order_number is None else mp_order_number
    fault = None
    for row in read_rows(file, resources.settings.body):
        if isinstance(row, BadRow) and None in (row.seller_id, row.mp_order_number):
            is_it = departures.mentions(row.raw, word)
            fault = fault or row.file_fault
        elif row.seller_id != seller_id:
            is_it = False
        elif isinstance(row, BadRow):
            is_it = mp_order_number is None or is_number(row.mp_order_number, mp_order_number)
        else:
            is_it = mp_order_number in (None, row.mp_order_number)
        if is_it:
            return True
    if fault:
        raise FeedAmpError(fault)
    return False
