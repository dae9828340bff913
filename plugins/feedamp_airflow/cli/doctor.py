"""`feedamp doctor`: checks each part separately, so that one fault does not hide the next."""

import argparse
import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pendulum
from airflow.configuration import conf

from feedamp.api.account import check_origin
from feedamp.api.clock_check import ClockCheck, date_of
from feedamp.errors import BeingLoadedError, ConfigurationError, FeedAmpError
from feedamp.file_modes import chmod_words, more_open
from feedamp.lake.store import Lake
from feedamp.resources import Resources
from feedamp.rules.failure_summary import counted, named
from feedamp.rules.origin import not_confirmed, others
from feedamp.state import HEAD, action_required, data_key, departures, encrypted_values, erasures, grants
from feedamp.steps.completeness_proof.compare import REPAIR, find_quickly, in_counts, in_words
from feedamp.steps.completeness_proof.found_differences import FoundDifferences
from feedamp.steps.lost_manifests import refuse_lost_lake
from feedamp.storage import Storage, shown_url
from feedamp_airflow import config, telling
from feedamp_airflow.audience import Audience
from feedamp_airflow.cli import running
from feedamp_airflow.cli.accounts import examine as examine_accounts
from feedamp_airflow.cli.init import dag_files
from feedamp_airflow.cli.output import Output
from feedamp_airflow.cli.running import DONE, MISUSED, REFUSED, near
from feedamp_airflow.config import Options
from feedamp_airflow.hook import FeedAmpHook
from feedamp_airflow.moments import moment
from feedamp_airflow.probing import probe
from feedamp_airflow.provider_info import get_provider_info
from feedamp_airflow.storages import open_store
from feedamp_airflow.wiring import lake_of, make_resources, make_warehouse, open_state

OK, PROBLEM, CONFIGURATION = "ok", "problem", "configuration"
# How long a warehouse that is in use is waited for.
LOAD_WAIT_S = 3.0
# What to do about an error that is not one of this package's own sentences.
FIXES = {
    "state": "Correct [feedamp] state_url or state_conn_id, or make what it names reachable and writable.",
    "token journal": "Correct [feedamp] journal_url, or make the folder writable for this user.",
    "inbox": "Correct [feedamp] inbox_url, or let this user read the folder.",
    "lake": "Correct [feedamp] lake_url, or let this user create the folder and write to it.",
    "warehouse": (
        "Correct [feedamp] duckdb_path, duckdb_memory_limit or warehouse_conn_id, or make what they name reachable and "
        "writable."
    ),
}


@dataclass(frozen=True)
class Check:
    """The result of one check; `state` is ok, problem or configuration."""

    name: str
    state: str
    says: str


def examine(given: argparse.Namespace, out: Output) -> int:
    """Prints every check; returns 2 if options or connections are wrong, 1 for another problem."""
    checks = []
    for check in _checks(out):
        checks.append(check)
        if not given.json:
            is_ok = check.state == OK
            mark, style = ("ok  ", "green") if is_ok else ("FAIL", "bold red")
            out.item(mark, f"{check.name}: {check.says}", style=style)
    states = {check.state for check in checks}
    code = MISUSED if CONFIGURATION in states else REFUSED if PROBLEM in states else DONE
    if given.json:
        out.document({"ok": code == DONE, "checks": checks})
    return code


def test_connection(given: argparse.Namespace, out: Output) -> int:
    """What the Test button of Airflow's form does, with a connection as it is saved; the default one if none is named."""
    conn_id = given.conn_id or Options().conn_id
    if given.conn_id:
        running.check_given_connection(conn_id)  # before it is repeated
    hook = FeedAmpHook(conn_id)
    hook.lock_wait_s = running.lock_wait_s.get() or hook.lock_wait_s
    works, sentence = hook.test_connection()
    (out.say if works else out.complain)(f"connection {conn_id}: {sentence}")
    return DONE if works else REFUSED


def _checks(out: Output) -> Iterator[Check]:
    tried = partial(_tried, out)
    # With the default for each that is faulty, so that the stores are checked all the same.
    options = Options()
    yield tried("options", lambda: _options(options))
    yield tried("time zone", _time_zone)
    state = tried("state", lambda: _state(options))
    yield state
    made: list[Resources] = []

    def make() -> str:
        made.append(make_resources(checks_key=False, options=options, lock_wait_s=running.LOOK_WAIT_S))
        return "can be opened"

    making = tried("stores and key", make)
    if made:
        [resources] = made
        yield tried("encryption key", lambda: _key(resources))
        yield tried("token journal", lambda: _journal(resources))
        for conn_id in _connections(resources):
            yield tried(f"connection {conn_id}", partial(_connection, resources, conn_id))
        yield tried("read_only", lambda: _read_only(resources))
        yield tried("erasures", lambda: _erasures(resources))
        yield tried("clock", lambda: _clock(resources))
        yield tried("accounts", lambda: examine_accounts(resources, out.reader))
        yield tried("inbox", lambda: _inbox(resources.inbox))
        stores = [
            tried("lake", lambda: _known_lake(resources)),
            tried("warehouse", lambda: _warehouse(options, resources)),
        ]
        yield from stores
        yield tried("file modes", lambda: _file_modes(options, resources.lake, resources.journal.folder))
        if all(check.state == OK for check in stores):
            yield tried("completeness", lambda: _completeness(options, resources, out.reader))
            yield tried("rows set aside", lambda: _set_aside(resources))
        resources.state.close()
    else:
        inbox_url = options.settings.inbox_url
        stores = [
            tried("inbox", lambda: _inbox(open_store("inbox_url", inbox_url))),
            tried("lake", lambda: _lake(lake_of(options))),
            tried("warehouse", lambda: _warehouse(options)),
        ]
        if not any(check.says.startswith(making.says) for check in (state, *stores)):
            yield making
        yield from stores
    yield tried("notifier", lambda: telling.fault(config.Options()))
    yield tried("DAG files", _dag_files)


def _tried(out: Output, name: str, check: Callable[[], str]) -> Check:
    """Runs a check; an error that it raises becomes its result. What a load keeps from being checked is no fault."""
    out.doing(f"checking {name} ...")
    try:
        return Check(name, OK, check())
    except ConfigurationError as error:
        return Check(name, CONFIGURATION, str(error))
    except BeingLoadedError as error:
        return Check(name, OK, f"not checked: {error}")
    except FeedAmpError as error:
        return Check(name, PROBLEM, str(error))
    except Exception as error:  # noqa: BLE001 - the other checks must still run
        lines = str(getattr(error, "orig", None) or error).splitlines()
        detail = f": {lines[0]}" if lines else ""
        # A URL that fsspec or SQLAlchemy cannot read, a driver that is not installed.
        state = CONFIGURATION if isinstance(error, ValueError | ImportError) else PROBLEM
        advice = f". {FIXES[name]}" if name in FIXES else ""
        return Check(name, state, f"{type(error).__name__}{detail}{advice}")


def _options(options: Options) -> str:
    known = set(get_provider_info()["config"]["feedamp"]["options"])
    unknown = sorted(set(conf.getsection(config.SECTION) or ()) - known)
    misspelt = [f"[feedamp] has no option {name}{near(name, known)}" for name in unknown]
    if faults := [*options.faults, *config.schedule_faults(), *misspelt]:
        raise ConfigurationError(" ".join(faults))
    return "can be used"


def _time_zone() -> str:
    """Whether dates without a zone mean UTC days to Airflow, as they do here."""
    name = conf.get_mandatory_value("core", "default_timezone")
    zone = None if name == "system" else pendulum.timezone(name)
    months = (datetime(2026, month, 1, tzinfo=UTC) for month in (1, 7))
    if not any(month.astimezone(zone).utcoffset() for month in months):
        return "Airflow reads dates as UTC"
    return (
        f"[core] default_timezone is {name}, not UTC: write the dates of a backfill with a Z, as in 2026-03-01T00:00:00Z; "
        "without it, a day is left out"
    )


def _state(options: Options) -> str:
    with contextlib.closing(open_state(options, lock_wait_s=running.LOOK_WAIT_S)) as state:
        revision = state.current_revision()
    if revision is not None and revision > HEAD:
        raise ConfigurationError(
            f"It is at {revision}, created by a newer version; this version knows {HEAD}: upgrade the package."
        )
    where = shown_url(state.url.render_as_string())
    if revision is None:
        return f"{where} is empty"
    return f"{where} is at {revision}" + (
        "" if revision == HEAD else f", which is upgraded to {HEAD} on opening"
    )


def _key(resources: Resources) -> str:
    state, cipher = resources.state, resources.cipher
    with state.read() as connection:
        has_grants = grants.is_any(connection)
        grants.check_key(connection, cipher)
    cipher.fingerprint("doctor", "")  # raises without the data key
    use, older_pairs, examined = encrypted_values.examine(state, cipher), 0, "all of the state"
    with contextlib.suppress(OSError, FeedAmpError):  # `token journal` says why it cannot be read
        _, older_pairs, _ = resources.journal.under_keys()
        examined = "everything"
    if use.unreadable:
        raise FeedAmpError(
            f"{counted(len(use.unreadable), 'grant')} cannot be decrypted ({named(sorted(use.unreadable))}): connect these sellers "
            "again, or restore the key that encrypted them, as the last one of encryption_key."
        )
    count, older = len(cipher.key_ids), use.older + older_pairs
    if older:
        raise FeedAmpError(
            f"still encrypted under an older one of {count} keys: {counted(older, 'value')}; run `feedamp key rotate`."
        )
    if count > 1:
        return f"{count} keys; {examined} is encrypted with the newest, and `feedamp key rotate` says when the older may go"
    return "decrypts the stored tokens" if has_grants else "is valid; no token was encrypted with it yet"


def _journal(resources: Resources) -> str:
    resources.journal.reserve("doctor").release()  # as before each refresh
    waiting = resources.journal.waiting()
    pairs = counted(waiting, "token pair")
    return f"can be written; waiting for the state: {pairs}" if waiting else "can be written; empty"


def _connections(resources: Resources) -> list[str]:
    return sorted(running.known_connections(resources))


def _connection(resources: Resources, conn_id: str) -> str:
    _origin(resources, conn_id)
    works, sentence = asyncio.run(probe(resources.connection(conn_id), lambda: resources))
    if not works:
        raise FeedAmpError(sentence)
    return sentence


def _origin(resources: Resources, conn_id: str) -> None:
    """Raises a ConfigurationError if any grant of the connection was issued by another server."""
    endpoint = resources.connection(conn_id).endpoint
    check_origin(resources.state, conn_id, endpoint)
    with resources.state.read() as connection:
        known = grants.origins(connection, conn_id)
    for issued_by in others(known, endpoint.origin):
        raise ConfigurationError(not_confirmed(conn_id, issued_by=issued_by, origin=endpoint.origin))


def _clock(resources: Resources) -> str:
    """What contradicts the state database's clock; FeedAMP's is that of the first connection that answers."""
    check, agrees = ClockCheck(resources.state), "agrees with FeedAMP's"
    for conn_id in _connections(resources):
        with contextlib.suppress(FeedAmpError):
            _origin(resources, conn_id)
            check.saw(asyncio.run(date_of(resources.connection(conn_id).endpoint)))
            break
    else:
        check.saw(None)
        agrees = "FeedAMP did not answer; nothing in the state contradicts it"
    check.raise_if_refused()
    if check.doubt is None:
        return agrees
    if not check.doubt.is_idle:
        raise FeedAmpError(check.doubt.text)
    return check.doubt.text


def _inbox(store: Storage) -> str:
    store.check_bucket()
    with store.reached():
        if not store.is_object_store and not store.fs.exists(store.root):
            raise FeedAmpError(f"There is no {store.url}: create it, or correct [feedamp] inbox_url.")
        try:
            names = store.fs.ls(store.root, detail=False)
        except FileNotFoundError:  # a bucket has no folders: an absent prefix is an empty inbox
            names = []
    return f"{store.url} holds {counted(len(names), 'file')}"


def _known_lake(resources: Resources) -> str:
    refuse_lost_lake(resources)  # first: the probe would make the folder of a disk that is not mounted
    return _lake(resources.lake)


def _lake(lake: Lake) -> str:
    probe = lake.absolute(f".doctor-{uuid.uuid4().hex}")
    with lake.storage.reached():
        lake.prepare(probe)
        lake.fs.pipe_file(probe, b"")
        lake.fs.rm_file(probe)
    return f"{lake.root if lake.is_local else lake.storage.url} can be written"


def _warehouse(options: Options, resources: Resources | None = None) -> str:
    warehouse = make_warehouse(options, lock_wait_s=LOAD_WAIT_S, away_s=0.0)
    with warehouse.session():
        left = _left_by_erasures(resources, warehouse.left_by_erasing) if resources else ""
        return f"{warehouse.shown} can be opened{left}"


def _left_by_erasures(resources: Resources, left: Callable[[], str]) -> str:
    """What only the owner of a database can end, as the end of a sentence; empty if nothing was erased or nothing is left."""
    with resources.state.read() as connection:
        last = erasures.last(connection)
    said = left() if last else ""
    return f"; {said}, the last one at {moment(last)}" if last and said else ""


def _file_modes(options: Options, lake: Lake, journal: str | None) -> str:
    """Whether local files of lake and warehouse are no more open than `file_mode`; those from before it can be.

    A token journal in the lake is for its owner only, so it is left out, also of the command that is advised.
    """
    allowed = options.file_mode
    found = {}
    if lake.is_local:
        has_journal = (
            journal is not None and Path(journal).is_relative_to(lake.root) and Path(journal).exists()
        )
        found[f"lake {lake.root}"] = (
            more_open(lake.root, allowed, but=journal),
            f"find -H {lake.root} -path {journal} -prune -o ! -type l -exec chmod {chmod_words(allowed)} {{}} +"
            if has_journal
            else f"chmod -R {chmod_words(allowed)} {lake.root}",
        )
    if not options.warehouse_conn_id:
        path = options.duckdb_path
        beside = [path, f"{path}.wal", f"{path}.tmp"]
        found[f"warehouse {path}"] = (
            [one for some in beside for one in more_open(some, allowed)],
            f"chmod -R {chmod_words(allowed)} {path}*",
        )
    told = [
        f"{counted(len(paths), 'path')} of the {what}, such as {paths[0]}, can be used by more users than [feedamp] file_mode "
        f"{allowed:04o} lets: run `{command}`, or set the option to what you want."
        for what, (paths, command) in found.items()
        if paths
    ]
    if told:
        raise FeedAmpError(" ".join(told))
    return f"no file is more open than {allowed:04o}" if found else "object stores and servers have none"


def _completeness(options: Options, resources: Resources, reader: Audience) -> str:
    warehouse = make_warehouse(options, lock_wait_s=0.0, away_s=0.0)
    with FoundDifferences() as found:
        words = find_quickly(resources, warehouse, found)
        if found:
            raise FeedAmpError(reader.said(in_words(found), f"{in_counts(found)}. Run {REPAIR}."))
    return f"nothing is missing in the warehouse; {words}"


def _read_only(resources: Resources) -> str:
    """No fault, as a person wants it so, but it explains why nothing is sent."""
    stop = resources.read_only.stop()
    return "off" if stop is None else stop.sentence


def _erasures(resources: Resources) -> str:
    with resources.state.read() as connection:
        unfinished = erasures.unfinished(connection)
        void = data_key.void_erasures(connection, resources.cipher)
        replaced = erasures.replaced(connection)
        whose = (
            erasures.registered_seller(connection, resources.cipher, unfinished[0]) if unfinished else None
        )
    if unfinished:
        first = unfinished[0]
        of_orders = [one for one in unfinished if one.kind == "order"]
        by_seller = "; one of an order also leaves this line with `feedamp sellers erase` of its seller"
        helps = bool(of_orders) and all(one.seller_mark for one in of_orders)
        unknown = f"which order of seller {whose}" if whose else "whose"
        raise FeedAmpError(
            f"{counted(len(unfinished), 'erasure')} of {first.kind}s not finished, the first asked for by "
            f"{first.asked_by or 'a user without a name'} at {moment(first.asked_at)}: run its command again. The state no longer "
            f"knows {unknown} it was{by_seller if helps else ''}."
        )
    left = (
        f"; {counted(replaced, 'erasure')} never finished, but another one came in its place: if you know whose it was, run its "
        "command too, which ends this note; it stays where the data key was lost since"
        if replaced
        else ""
    )
    left += _left_by_erasures(resources, lambda: departures.left_by_rewrite(resources.state))
    return f"none is unfinished{left}" + (
        f"; {counted(void, 'mark')} of a lost data key no longer works: repeat each erasure from before, which takes one off. What an "
        "erasure that is not repeated has erased is stored again when it comes again"
        if void
        else ""
    )


def _set_aside(resources: Resources) -> str:
    with resources.state.read() as connection:
        count = action_required.refused_by_warehouse(connection, limit=1).count
    if count:
        raise FeedAmpError(
            f"{counted(count, 'row')} cannot be stored in the warehouse and are only in the lake: `feedamp rejected list` "
            "names them, `feedamp lake retry` tries them again."
        )
    return "none"


def _dag_files() -> str:
    """Whether Airflow has each DAG file once, in whichever bundle, and can import it."""
    from airflow.dag_processing.dagbag import DagBag

    # An error is the result of the check; its traceback would hide the other results.
    logging.getLogger("airflow.dag_processing").setLevel(logging.CRITICAL)
    folders = _dag_folders()
    there = [path for folder in folders.values() if folder.is_dir() for path in folder.rglob("feedamp_*.py")]
    expected = [file.name for file in dag_files()]
    errors: dict[str, str] = {}
    for path in [path for path in there if path.name in expected] or dag_files():
        bag = DagBag(str(path), bundle_path=path.parent)
        if bag.import_errors:
            errors[path.name] = next(iter(bag.import_errors.values()))
    if errors:
        name, text = next(iter(errors.items()))
        raise FeedAmpError(f"{len(errors)} cannot be imported; {name}: {text.strip().splitlines()[-1]}")
    names = [path.name for path in there]
    # Bundles without any of them, such as those of Airflow's examples, are not ours to name.
    ours = (some for some in folders.items() if any(path.is_relative_to(some[1]) for path in there))
    where = " and ".join(f"{folder} (bundle {name})" for name, folder in ours)
    if missing := [name for name in expected if name not in names]:
        raise FeedAmpError(
            f"{where or 'Each DAG bundle'} lacks {', '.join(missing)}; `feedamp init` prints the option that serves them where they are installed, "
            "`feedamp init DIR` copies them into a DAG folder."
        )
    if twice := [name for name in expected if names.count(name) > 1]:
        raise FeedAmpError(f"{', '.join(twice)} is there more than once, in {where}: remove all but one.")
    return f"{len(expected)} in {where} can be imported"


def _dag_folders() -> dict[str, Path]:
    """The folder of each DAG bundle that has one on this machine, by the bundle's name; others are not fetched for this."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager

    found = {}
    for bundle in DagBundlesManager().get_all_dag_bundles():  # type: ignore[no-untyped-call]
        with contextlib.suppress(Exception):  # of a bundle that must be fetched first
            found[bundle.name] = Path(bundle.path)
    return found
