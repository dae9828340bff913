"""What the task `gate` tells the world: notifications through any of Airflow's notifiers, and metrics.

Neither ever makes a run red, and both cost nothing while they are not configured.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.configuration import conf
from airflow.sdk.exceptions import AirflowTaskTimeout
from airflow.sdk.execution_time.timeout import timeout

from feedamp.errors import ConfigurationError
from feedamp.rules.failure_summary import counted
from feedamp.rules.order import OPEN_PHASES
from feedamp.run import printable
from feedamp.settings import Settings
from feedamp.state import notices, overview, sellers
from feedamp.state.grants import WARN_BEFORE
from feedamp.state.sellers import NEEDS_AUTHORIZATION
from feedamp_airflow.cli import status
from feedamp_airflow.config import NotifierSetting, Options, read_options
from feedamp_airflow.wiring import make_resources

if TYPE_CHECKING:
    from airflow.sdk import BaseNotifier
    from sqlalchemy.engine import Connection

    from feedamp.resources import Resources

log = logging.getLogger(__name__)
SELLERS_LISTED = 20
PATIENCE_S = 60  # a notifier that hangs would hold up its DAG, of which only one run is active
MESSAGE = "feedamp_message"  # the name in the templates of a notifier
DIGEST = "action_required/"


class Fact(NamedTuple):
    """What people should know of one seller, or of the whole (`seller_id` empty)."""

    kind: str
    seller_id: str
    words: str


def tell(context: Mapping[str, Any]) -> None:
    """Sends what is new to the notifier, and the totals to the metrics. Never raises, as the run is done."""
    with _harmless("Notifications"):
        options = read_options()
        if options.notifier is None and not metrics_are_on():
            return
        with contextlib.closing((resources := make_resources()).state):
            with resources.state.read() as connection:
                document = status.document(connection, options.settings, resources.state.now())
                findings = overview.open_findings(connection)
            if metrics_are_on():
                send_totals(document, findings)
            if options.notifier is not None:
                notify(resources, options.notifier, document, context)


@contextlib.contextmanager
def _harmless(what: str) -> Iterator[None]:
    """Lets no error out. Its message is not logged unless it is ours: it may hold the address of a webhook, a secret."""
    try:
        yield
    except ConfigurationError as error:
        log.warning("%s failed: %s", what, error)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a class of others raises
        log.warning("%s failed with %s; the next run tries again.", what, type(error).__name__)


def metrics_are_on() -> bool:
    """Whether Airflow sends metrics anywhere."""
    switches = ("statsd_on", "statsd_datadog_enabled", "otel_on")
    return any(conf.getboolean("metrics", name, fallback=False) for name in switches)


def send_totals(document: Mapping[str, Any], findings: int) -> None:
    """The gauges of docs/monitoring.md: totals only, without a seller in any name."""
    from airflow.sdk.observability import stats

    with _harmless("Metrics"):
        for name, value in totals(document, findings).items():
            stats.gauge(f"feedamp.{name}", value)


def totals(document: Mapping[str, Any], findings: int) -> dict[str, int]:
    """The gauges by name, of what `feedamp status` shows."""
    age_s = document["watermarks"]["oldest_age_s"]
    way = document["on_the_way_to_the_warehouse"]
    return {
        "orders_open": sum(document["orders"][phase]["count"] for phase in OPEN_PHASES),
        "findings_open": findings,
        "sellers_needing_authorization": document["sellers"][NEEDS_AUTHORIZATION],
        "action_required": sum(some["count"] for some in document["needs_person"].values()),
        "manifests_to_load": way["manifests"],
        "read_only": int(document["read_only"] is not None),
        **({} if age_s is None else {"oldest_watermark_age_s": age_s}),
    }


def count(name: str, orders: int) -> None:
    """Adds to a counter; nothing without metrics."""
    if orders and metrics_are_on():
        from airflow.sdk.observability import stats

        with _harmless("Metrics"):
            stats.incr(f"feedamp.{name}", orders)


def notify(
    resources: Resources, setting: NotifierSetting, document: Mapping[str, Any], context: Mapping[str, Any]
) -> None:
    """Sends one message of all that is new, and records it; what has ended is told when it begins again.

    Raises what the notifier raises; nothing is recorded then.
    """
    with resources.state.leases.hold("notify") as lease:
        if lease is None:
            return  # another run is telling it
        with resources.state.read() as connection:
            facts = current_facts(connection, document, resources.settings)
            told = notices.told(connection)
        ended = {
            key
            for key in told - facts.keys()
            if not (key.startswith(DIGEST) and key >= _digest(document["now"]))
        }
        new = {key: fact for key, fact in facts.items() if key not in told}
        if new:
            send(setting, message(list(new.values())), context)
            log.info("A notification was sent: %s.", counted(len(new), "new fact"))
        if new or ended:
            with resources.state.begin() as connection:
                notices.record(connection, new, now=resources.state.now())
                notices.end(connection, ended)


def send(setting: NotifierSetting, text: str, context: Mapping[str, Any]) -> None:
    """Sends a text by the notifier; not by calling it, since it would log the error, and with it a webhook's address."""
    notifier = made(setting)
    filled: Any = {**context, MESSAGE: text}
    notifier.render_template_fields(filled)
    try:
        with timeout(PATIENCE_S):  # type: ignore[no-untyped-call]  # of Airflow
            notifier.notify(filled)
    except AirflowTaskTimeout:
        raise TimeoutError from None  # that of a task is no Exception, and would end `gate`


def made(setting: NotifierSetting) -> BaseNotifier:
    """The notifier of the option.

    Raises:
        ConfigurationError: the class cannot be imported or is not a notifier, or its arguments do not fit or hold no message.
    """
    from airflow.sdk import BaseNotifier

    try:
        module, _, name = setting.class_path.rpartition(".")
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"[feedamp] notifier: {setting.class_path} cannot be imported; install its provider, or correct the path."
        ) from error
    except (Exception, SystemExit) as error:
        raise ConfigurationError(
            f"[feedamp] notifier: the import of {setting.class_path} ends with {type(error).__name__}; correct that module, or "
            "name another class."
        ) from error
    if not (isinstance(kind, type) and issubclass(kind, BaseNotifier)):
        raise ConfigurationError(f"[feedamp] notifier: {setting.class_path} is not a BaseNotifier.")
    try:
        notifier = kind(**setting.kwargs)
    except Exception:  # noqa: BLE001 - whatever a class makes of wrong arguments
        # `from None`: the message of an error can repeat an argument, which may be a secret.
        raise ConfigurationError(
            f"[feedamp] notifier: {setting.class_path} does not take these kwargs."
        ) from None
    if notifier.template_fields and MESSAGE not in repr(setting.kwargs):
        raise ConfigurationError(
            f"[feedamp] notifier: no kwarg holds {{{{ {MESSAGE} }}}}, so a notification would not say what happened."
        )
    return notifier


def current_facts(connection: Connection, document: Mapping[str, Any], settings: Settings) -> dict[str, Fact]:
    """All that people should know now, by the key under which it is told once."""
    now: datetime = document["now"]
    refused = [
        s.seller_id for s in sellers.find(connection) if s.grant == NEEDS_AUTHORIZATION and not s.paused
    ]
    facts = [Fact("grant_refused", seller_id, "") for seller_id in refused]
    ending = notices.ending_grants(connection, before=now + WARN_BEFORE)
    facts += [Fact("grant_ends", seller_id, f"{ends_at:%Y-%m-%d}") for seller_id, ends_at in ending.items()]
    stale = overview.stale_sellers(connection, before=now - settings.stale_watermark)
    facts += [
        Fact(
            "stale_watermark",
            one.seller_id,
            f"{'never, connected ' if one.watermark is None else ''}{one.since:%Y-%m-%d %H:%M}",
        )
        for one in stale
    ]
    by_key = {f"{fact.kind}/{fact.seller_id}": fact for fact in facts}
    needed = "".join(
        f"\n- {some['count']} {status.TITLES[name].format(s='' if some['count'] == 1 else 's')}"
        for name, some in document["needs_person"].items()
        if some["count"]
    )
    return by_key | ({_digest(now): Fact("action_required", "", needed)} if needed else {})


def _digest(now: datetime) -> str:
    return f"{DIGEST}{now:%Y-%m-%d}"


_LINES = {
    "grant_refused": "FeedAMP refuses the grant of {sellers}, who must authorize again: {named}",
    "grant_ends": f"Within {WARN_BEFORE.days} days the grant ends of {{sellers}}, who must authorize again: {{named}}",
    "stale_watermark": "For too long nothing was read completely of {sellers}: {named}",
}


def message(facts: list[Fact]) -> str:
    """One text of all the facts; ids of sellers, dates and counts only."""
    return "\n".join(_lines(facts))


def _lines(facts: list[Fact]) -> Iterator[str]:
    for kind, line in _LINES.items():
        found = [fact for fact in facts if fact.kind == kind]
        names = [
            printable(fact.seller_id) + (f" ({fact.words})" if fact.words else "")
            for fact in found[:SELLERS_LISTED]
        ]
        more = [f"and {len(found) - SELLERS_LISTED} more"] if len(found) > SELLERS_LISTED else []
        if found:
            yield line.format(sellers=counted(len(found), "seller"), named=", ".join(names + more))
    yield from (f"Action required:{fact.words}" for fact in facts if fact.kind == "action_required")


def fault(options: Options) -> str:
    """For `feedamp doctor`: what the notifier is; raises as `made`."""
    return (
        "no notifications are sent"
        if options.notifier is None
        else f"{type(made(options.notifier)).__name__} can be used"
    )
