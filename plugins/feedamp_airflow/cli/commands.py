"""Every command of `feedamp` with its arguments; `run` names the function that executes it, as module:function."""

from __future__ import annotations

import argparse
from functools import cache
from typing import Any

from feedamp import __version__

_EPILOG = """exit codes: 0 done; 1 something requires action or was refused; 2 usage or configuration.
Options and connections are those of the Airflow installation that this command runs in."""
_IMPORT = """Registers sellers with their grants from a file of JSON Lines, one seller a line:

  {"seller_id": "S1", "name": "…", "sales_channel": "…", "conn_id": "…", "refresh_token": "…"}

name, sales_channel and conn_id may be missing: a known seller keeps its values, a new one gets option conn_id.
A line counts as
  added      the seller is new
  updated    name, sales_channel or conn_id changed, or a grant was stored: the seller had none, must authorize
             again, or --replace was given
  unchanged  nothing new; a refresh token seen before, even long ago, is ignored. With --replace, that of an earlier
             grant is used again if the one after it cannot be; stderr says where a later grant stays
  refused    the line is wrong, its token is another seller's, or the seller has a live grant and no --replace
             was given: the line changed nothing. Or the account behind the token shows none of the orders that
             were placed for the seller, or another seller's: the token is stored and not used until --force is given

Refused lines are named on stderr. Repeating an import changes nothing."""
_ADOPT = """Records, in ledger, lake and warehouse, orders that FeedAMP has but that another system placed: all that
FeedAMP imported, or that a seller changed, since a given moment. From then on they are validated like all others.
Nothing is sent. An adopted order can be closed only with its body: deliver it to the inbox as it was placed.

Repeating it changes nothing; an order that the ledger knows is not changed."""
_VERIFY = """Compares the state with the warehouse, and with a warehouse built from the lake alone: orders, placements,
closures, findings, rejected rows, lines and shipments; and every manifest with the rows in its files. Rows that wait for
the next load are not missing.

--repair writes what the state knows to the lake again. It reads orders that differ, and open ones that FeedAMP has never
shown, from FeedAMP by number, loads, and compares once more. It sends no order. Repeating it changes nothing.

Exit code 1 if anything is missing."""
_REPORT = """Reads the state only, so it works while the warehouse is in use. Each day of the range is one of

  empty          without an order: before the first known one or the first seller, none to compare (or none any more), or
                 not over yet
  never checked  no reconciliation of it is known, or only from before it was over
  differing      differences are left
  incomplete     the comparison failed in part: a run stopped, a seller failed or was not asked for, an order is unreadable
  repaired       all differences were repaired
  clean          no difference

Orders that sellers have changed since the last extraction are no difference: not_extracted_yet. What was checked more
than 400 days ago is in the warehouse only.

Exit code 1 if a day is differing, incomplete or never checked."""
_ERASE = """\
Erases personal data from every store and keeps a record that names no one: a keyed mark, when, by whom, and counts.
Nothing stores it again: no delivery, extraction, comparison or repair. It cannot be undone, and FeedAMP keeps what it
has: an order that is open there is neither read nor closed here any more.

Shows what the state has, and asks. A process may end anywhere in between: run the command again, as often as needed;
`feedamp doctor` says that an erasure is unfinished.

Exit code 1 if a store is unfinished, or the inbox still has files that hold it: these are named, and no command of this
package changes them."""
_ROTATE = """Encrypts everything that is stored under older keys with the newest one: grants, token pairs of the journal and the
data key. Fingerprints and pseudonyms stay the same. It may be stopped at any moment and repeated, while DAGs run.

With option encryption_key, first put the new key before the old one, as in NEW,OLD, in every process. Without it, a
new key is made in the key file beside the SQLite state; the old one stays behind it until a later rotation finds that
nothing needs it any more.

Says when the old key may go. A process that began with it as its first key may encrypt with it until it ends; so that is
a day after the last one began, or at once with --restarted, if each process has been restarted since the newest key was
there. So --restarted makes no key: run it once without, restart, and run it again with it.

Exit code 1 if values are left under an older key, or under one that is not there."""
_STATES = ("held", "to_report", "reported", "resolved", "waived")


class _Exact(argparse.ArgumentParser):
    """Takes options only as they are written: what `feedamp_admin` refuses must not pass under a shorter name.

    A text of several lines is shown with these lines.
    """

    def __init__(self, **settings: Any) -> None:
        texts = (settings.get("description"), settings.get("epilog"))
        if any("\n" in text for text in texts if text):
            settings["formatter_class"] = argparse.RawDescriptionHelpFormatter
        super().__init__(allow_abbrev=False, **settings)


@cache
def parser() -> argparse.ArgumentParser:
    """The whole command line, made once: with all its texts it takes longer than many a command."""
    made: argparse.ArgumentParser = _Exact(
        prog="feedamp",
        description="Manages the work of the FeedAMP DAGs: sellers and their grants, orders, findings, rejected rows.",
        epilog=_EPILOG,
    )
    made.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    nouns = made.add_subparsers(metavar="COMMAND", required=True)
    _add_init(nouns)
    _add_sellers(nouns)
    _add_keys(nouns)
    _add_orders(nouns)
    _add_adopt(nouns)
    _add_findings(nouns)
    _add_rejected(nouns)
    _add_reconciliation(nouns)
    status = nouns.add_parser("status", help="show what is waiting and what requires action")
    _does(status, "status:show", listing=True)
    doctor = nouns.add_parser("doctor", help="check options, connections, stores and DAG files")
    _does(doctor, "doctor:examine", listing=True)
    read_only = nouns.add_parser(
        "read-only",
        help="stop everything that is sent to FeedAMP, or let it go on",
        description="While it is on, reads go on, runs stay green and say so, and what is due waits. Without on or off, "
        "says which it is, who switched it on, when and why.",
    )
    read_only.add_argument("to", choices=("on", "off"), nargs="?")
    read_only.add_argument("--reason", help="why it is switched on")
    _does(read_only, "read_only:switch")
    _add_stores(nouns)
    # `main` handles it before this parser; it is here so that --help lists it.
    nouns.add_parser("sandbox", help="run a FeedAMP sandbox on this machine", add_help=False)
    return made


Nouns = argparse._SubParsersAction  # noqa: SLF001 - argparse has no public name for it


def _verbs(nouns: Nouns[argparse.ArgumentParser], name: str, text: str) -> Nouns[argparse.ArgumentParser]:
    return nouns.add_parser(name, help=text).add_subparsers(metavar="VERB", required=True)


def _does(command: argparse.ArgumentParser, run: str, *, listing: bool = False) -> None:
    command.set_defaults(run=run)
    if listing:
        command.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _add_init(nouns: Nouns[argparse.ArgumentParser]) -> None:
    init = nouns.add_parser(
        "init",
        help="let Airflow find the DAG files, or start a new state",
        description="Prints the DAG bundles of this Airflow and the one that serves the DAG files where they are "
        "installed: the value of dag_bundle_config_list. With DIR, copies the DAG files there instead; a changed one "
        "is left alone. With --state, creates the state database instead, even if a lake or a key file of an earlier "
        "state exists. Repeating it changes nothing.",
    )
    init.add_argument("folder", metavar="DIR", nargs="?", help="a DAG folder; created if it does not exist")
    init.add_argument("--force", action="store_true", help="overwrite files that differ")
    init.add_argument("--state", action="store_true", help="create the state database and its key")
    _does(init, "init:start")


def _add_sellers(nouns: Nouns[argparse.ArgumentParser]) -> None:
    verbs = _verbs(nouns, "sellers", "register, connect, remove or erase sellers")
    add = verbs.add_parser("add", help="register a seller without a grant, or change one")
    add.add_argument("seller", metavar="SELLER", help="the marketplace's own id of the seller")
    add.add_argument("--name")
    add.add_argument("--sales-channel")
    add.add_argument("--conn-id", help="connection of the seller's FeedAMP; option conn_id if not given")
    _does(add, "sellers:add")
    from_file = verbs.add_parser("import", help="register sellers with their grants", description=_IMPORT)
    from_file.add_argument("file", metavar="FILE", help="JSON Lines; - reads stdin")
    from_file.add_argument("--replace", action="store_true", help="let new tokens replace live grants")
    from_file.add_argument(
        "--force",
        action="store_true",
        help="use grants although their accounts show other orders, also those that are set aside",
    )
    _does(from_file, "importing:import_file")
    listing = verbs.add_parser("list", help="list sellers and the state of their grants")
    _does(listing, "sellers:show", listing=True)
    for verb, text in (
        ("pause", "stop placing, reading and closing for a seller; the grant is kept alive"),
        ("resume", "resume work for a paused seller"),
    ):
        command = verbs.add_parser(verb, help=text)
        command.add_argument("seller", metavar="SELLER")
        _does(command, f"sellers:{verb}")
    remove = verbs.add_parser(
        "remove",
        help="drop a seller's grant and stop all work for it",
        description="Drops the seller's grants and tokens: nothing is refreshed, read or sent for it any more. Its orders, "
        "events, findings and runs stay; orders that are not done wait until the seller is added again. Says what becomes of "
        "them, and asks.",
    )
    remove.add_argument("seller", metavar="SELLER")
    remove.add_argument("--yes", action="store_true", help="confirm without a question")
    _does(remove, "departing:remove")
    erase = verbs.add_parser(
        "erase", help="erase all that is stored of a seller, permanently", description=_ERASE
    )
    erase.add_argument("seller", metavar="SELLER")
    erase.set_defaults(number=None)
    _erases(erase)
    confirm = verbs.add_parser(
        "confirm-host",
        help="use a connection's grants at its new host",
        description="A grant belongs to the server that issued it: after Base URL of a connection has changed, neither tokens nor "
        "the client secret are sent there until this command confirms that FeedAMP has moved. Shows the old and the new "
        "server, and asks.",
    )
    confirm.add_argument("--conn-id", help="the connection; option conn_id if not given")
    confirm.add_argument("--yes", action="store_true", help="confirm without a question")
    confirm.set_defaults(origin=None)
    _does(confirm, "sellers:confirm_host")
    url = verbs.add_parser(
        "authorize-url", help="print the URL where the seller consents; good for 15 minutes"
    )
    url.add_argument("seller", metavar="SELLER")
    _does(url, "authorizing:make_url")
    authorize = verbs.add_parser("authorize", help="store the grant that the seller consented to")
    authorize.add_argument("seller", metavar="SELLER")
    outcome = authorize.add_mutually_exclusive_group()
    outcome.add_argument(
        "--code",
        help="`code` of the callback; - reads it and the state from stdin, which no list of processes shows",
    )
    outcome.add_argument("--error", help="`error` of the callback, where the seller did not consent")
    authorize.add_argument("--state", help="`state` of the callback")
    authorize.add_argument(
        "--force",
        action="store_true",
        help="use the grant although its account shows other orders; without --code, the one that is set aside",
    )
    _does(authorize, "authorizing:authorize_from_shell")


def _add_keys(nouns: Nouns[argparse.ArgumentParser]) -> None:
    rotate = _verbs(nouns, "key", "rotate the encryption key").add_parser(
        "rotate",
        help="encrypt everything with the newest key; say when the old one may go",
        description=_ROTATE,
    )
    rotate.add_argument(
        "--restarted",
        action="store_true",
        help="every process has been restarted since the newest key is there",
    )
    _does(rotate, "keys:rotate_keys", listing=True)


def _add_orders(nouns: Nouns[argparse.ArgumentParser]) -> None:
    verbs = _verbs(nouns, "orders", "show, list, acknowledge or erase orders")
    show = verbs.add_parser("show", help="show an order's phase and what it waits for; no customer field")
    show.add_argument("seller", metavar="SELLER")
    show.add_argument("number", metavar="NUMBER", help="mp_order_number")
    _does(show, "orders:show", listing=True)
    listing = verbs.add_parser("list", help="list orders and what each waits for; no customer field")
    which = listing.add_mutually_exclusive_group()
    which.add_argument(
        "--open", action="store_true", help="only orders to be placed, placed and not closed, or held"
    )
    which.add_argument("--waiting", action="store_true", help="only orders that are still to be placed")
    listing.add_argument("--seller", metavar="SELLER", help="only orders of this seller")
    listing.add_argument(
        "--older-than", metavar="D", type=_days, help="only orders first delivered more than D days ago"
    )
    listing.add_argument(
        "--limit", metavar="N", type=int, default=10_000, help="at most N; 10000 if not given"
    )
    _does(listing, "orders:show_all", listing=True)
    acknowledge = verbs.add_parser(
        "acknowledge",
        help="record that an order closed against its units is resolved; a cancelled one is listed again if more are shipped",
    )
    acknowledge.add_argument("seller", metavar="SELLER")
    acknowledge.add_argument("number", metavar="NUMBER", help="mp_order_number")
    acknowledge.add_argument("--reason", required=True, help="stored with the order")
    _does(acknowledge, "orders:acknowledge")
    erase = verbs.add_parser(
        "erase", help="erase all that is stored of an order, permanently", description=_ERASE
    )
    erase.add_argument("seller", metavar="SELLER")
    erase.add_argument("number", metavar="NUMBER", help="mp_order_number")
    _erases(erase)


def _erases(command: argparse.ArgumentParser) -> None:
    command.add_argument("--dry-run", action="store_true", help="only show what the state has")
    command.add_argument("--yes", action="store_true", help="confirm without a question")
    _does(command, "departing:erase", listing=True)


def _days(text: str) -> float:
    """Days as a number; argparse shows the message of the error."""
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days <= 36_500:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days")
    return days


def _add_adopt(nouns: Nouns[argparse.ArgumentParser]) -> None:
    adopt = nouns.add_parser("adopt", help="record orders that another system placed", description=_ADOPT)
    adopt.add_argument("sellers", metavar="SELLER", nargs="*", help="all sellers if none is named")
    adopt.add_argument(
        "--since", required=True, help="moment with time zone, as 2026-01-01T00:00:00Z; inclusive"
    )
    adopt.add_argument("--dry-run", action="store_true", help="read and count, write nothing")
    _does(adopt, "adopting:run", listing=True)


def _add_findings(nouns: Nouns[argparse.ArgumentParser]) -> None:
    verbs = _verbs(nouns, "findings", "list or waive faults in what sellers reported")
    listing = verbs.add_parser("list", help="list findings; without --state, open ones")
    listing.add_argument("--state", action="append", choices=(*_STATES, "all"), help="may be repeated")
    listing.add_argument("--seller", action="append", help="may be repeated")
    _does(listing, "findings:show", listing=True)
    waive = verbs.add_parser(
        "waive",
        help="overrule findings, so that they are not reported and block nothing: by id, or all of a seller or kind",
    )
    waive.add_argument("ids", metavar="ID", nargs="*")
    waive.add_argument("--seller", action="append", help="all open ones of this seller; may be repeated")
    waive.add_argument("--kind", action="append", help="all open ones of this kind; may be repeated")
    waive.set_defaults(count=None)
    waive.add_argument("--reason", required=True, help="stored with the finding")
    _does(waive, "findings:waive")


def _add_rejected(nouns: Nouns[argparse.ArgumentParser]) -> None:
    verbs = _verbs(nouns, "rejected", "list, replay, dismiss or export rejected rows")
    listing = verbs.add_parser("list", help="list open rejected rows, with all reasons")
    listing.add_argument("--all", action="store_true", help="also those that were superseded or dismissed")
    _does(listing, "rejected:show", listing=True)
    replay = verbs.add_parser(
        "replay",
        help="check rejected rows again under the current options",
        description="Checks rejected rows again under the current options. Orders that FeedAMP refused are sent once more.",
    )
    replay.add_argument("--source", action="append", help="only rows of this file; may be repeated")
    _does(replay, "rejected:replay_rows")
    dismiss = verbs.add_parser("dismiss", help="record that nothing has to be done about rejected rows")
    dismiss.add_argument("ids", metavar="ID", nargs="+", help="reject_id of `feedamp rejected list`")
    dismiss.add_argument("--reason", required=True, help="stored with the reject")
    _does(dismiss, "rejected:dismiss")
    export = verbs.add_parser(
        "export", help="write open rejected rows to a file; they may hold customer fields"
    )
    export.add_argument(
        "file", metavar="FILE", help="JSON Lines, readable only by you; replaced if it exists"
    )
    _does(export, "rejected:export")


def _add_reconciliation(nouns: Nouns[argparse.ArgumentParser]) -> None:
    verbs = _verbs(nouns, "reconciliation", "say what reconciliations found")
    report = verbs.add_parser(
        "report", help="sum up the newest reconciliation of each day and seller", description=_REPORT
    )
    report.add_argument(
        "--from", dest="first", metavar="DAY", required=True, help="first UTC day, as 2026-03-01"
    )
    report.add_argument("--to", dest="last", metavar="DAY", required=True, help="last UTC day, included")
    report.add_argument(
        "--csv", metavar="FILE", help="also write a row per day and seller; replaced if it exists"
    )
    _does(report, "reconciliation:report", listing=True)


def _add_stores(nouns: Nouns[argparse.ArgumentParser]) -> None:
    verbs = _verbs(nouns, "warehouse", "rebuild the warehouse")
    rebuild = verbs.add_parser("rebuild", help="rebuild it from the lake, then replace the old one")
    rebuild.add_argument(
        "--force",
        action="store_true",
        help="rebuild although manifests that were loaded are no longer in the lake",
    )
    _does(rebuild, "warehouse:rebuild")
    verbs = _verbs(nouns, "lake", "compact, retry or verify the lake")
    compact = verbs.add_parser(
        "compact",
        help="combine small files of past days",
        description="Combines loaded manifests of past days, and removes files that were replaced a day ago.",
    )
    compact.add_argument(
        "--before", metavar="DATE", help="only days before this one; two days ago if not given"
    )
    _does(compact, "lake:compact_lake")
    retry = verbs.add_parser(
        "retry",
        help="load rows and manifests that could not be loaded",
        description="Loads the manifests of rows that the warehouse refused once more, for example after it was changed, and "
        "everything that waits. A row that is still refused stays listed in `feedamp rejected list`.",
    )
    _does(retry, "lake:retry_lake")
    verify = verbs.add_parser(
        "verify", help="prove that nothing is missing in lake and warehouse", description=_VERIFY
    )
    verify.add_argument("--repair", action="store_true", help="restore what is missing")
    _does(verify, "lake:verify_lake", listing=True)
    verbs = _verbs(nouns, "db", "upgrade the state database, or print its revision")
    _does(verbs.add_parser("upgrade", help="upgrade its schema"), "database:upgrade")
    _does(verbs.add_parser("current", help="print its schema revision; changes nothing"), "database:current")
