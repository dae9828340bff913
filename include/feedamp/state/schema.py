"""Tables of the state database, for both SQLite and Postgres; `upgrade.py` brings earlier ones to it."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator


class UtcTime(TypeDecorator[datetime]):
    """A moment: must be written with a time zone and is read in UTC (SQLite itself stores no zone)."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """The moment in UTC; a time without a zone is refused as ambiguous."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without zone must not reach the state database")
        return value.astimezone(UTC)

    def bind_processor(self, dialect: Dialect) -> Callable[[datetime | None], Any] | None:
        """As `process_bind_param`. Rows that are stored together share moments, and to write one as text takes the longest."""
        usual = super().bind_processor(dialect)
        return None if usual is None else lru_cache(maxsize=1024)(usual)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """The moment in UTC."""
        if not isinstance(value, datetime):
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None] | None:
        """As `process_result_value`, in one call: an order of the ledger has fifteen moments, of which most are not set."""
        decode: Callable[[Any], Any] | None = self.impl_instance.result_processor(dialect, coltype)
        if decode is None:
            return super().result_processor(dialect, coltype)
        return lambda value: None if value is None else decode(value).replace(tzinfo=UTC)


metadata = sa.MetaData()
_SELLER = sa.String(128)
_NUMBER = sa.String(128)
# Conditions of partial indexes. SQLite uses such an index only for a query that has its condition to the letter, with no
# parameters.
CANCELLED_BUT_SHIPPED = "accepted_state = 'CANCELLED' AND closed_units_shipped > 0"
# Of one that the marketplace ships itself, which `close` never closes, FeedAMP need not show any units.
SHIPPED_BUT_WITHDRAWN = (
    "closing_state = 'SHIPPED' AND accepted_state = 'SHIPPED' AND closed_units_shipped = 0"
)
IS_CHANGED = "(validated_hash IS NULL OR validated_hash != snapshot_hash)"
IS_CLOSABLE = "closable"
IS_HELD = "state = 'held'"
# Validated, and with a wait in words of `rules/closing.py`; FeedAMP's own may be longer than what Postgres takes into an index.
IS_WAITING = "(validated_hash = snapshot_hash AND NOT needs_person)"
MAY_BE_STUCK = "(needs_person OR error_lingers_since IS NOT NULL)"


def _table(name: str, *columns: sa.Column[Any] | sa.Index, **options: Any) -> sa.Table:
    return sa.Table(name, metadata, *columns, **options)


def _partial(name: str, *columns: str, where: str) -> sa.Index:
    condition = sa.text(where)
    return sa.Index(name, *columns, sqlite_where=condition, postgresql_where=condition)


def _order_key() -> tuple[sa.Column[Any], sa.Column[Any]]:
    return (
        sa.Column("seller_id", _SELLER, primary_key=True),
        sa.Column("mp_order_number", _NUMBER, primary_key=True),
    )


sellers = _table(
    "sellers",
    sa.Column("seller_id", _SELLER, primary_key=True),
    sa.Column("name", sa.Text),
    sa.Column("sales_channel", sa.Text),
    sa.Column("conn_id", sa.Text, nullable=False),
    sa.Column("paused", sa.Boolean, nullable=False, default=False),
    sa.Column("paused_at", UtcTime),
    # Why the seller's account is in doubt, and the seller whose orders are mixed up with this one's.
    sa.Column("mix_up", sa.Text),
    sa.Column("mixed_with", _SELLER),
    sa.Column("added_at", UtcTime, nullable=False),
)


def _grant() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("conn_id", sa.Text, nullable=False),
        # scheme://host:port that issued the grant; null until the connection is first used after an upgrade.
        sa.Column("origin", sa.Text),
        # The seller whose orders the account showed when it was compared.
        sa.Column("shows_orders_of", _SELLER),
        # Tokens are encrypted. The previous refresh token is kept until the current one has worked.
        sa.Column("refresh_token", sa.Text, nullable=False),
        sa.Column("previous_refresh_token", sa.Text),
        sa.Column("access_token", sa.Text),
        sa.Column("access_expires_at", UtcTime),
        sa.Column("expires_in_s", sa.Integer),
        # Counts how often tokens were stored; a process that read an older number has a stale token.
        sa.Column("generation", sa.Integer, nullable=False, default=0),
        sa.Column("issued_at", UtcTime, nullable=False),
        sa.Column("refreshed_at", UtcTime),
        # When the account behind the grant was compared with the seller's known orders. Until then null, and no data is read.
        sa.Column("account_checked_at", UtcTime),
        # A person took the grant although its account shows other sellers' orders.
        sa.Column("account_forced", sa.Boolean, nullable=False, default=False, server_default=sa.false()),
        # When a person resumed the seller: orders placed for other sellers before that moment raise no new alarm.
        sa.Column("others_known_until", UtcTime),
        # Fingerprint of the refresh token of the consent or import; later refreshes do not change it.
        sa.Column("consent", sa.String(64)),
    )


grants = _table(
    "grants",
    sa.Column("seller_id", _SELLER, primary_key=True),
    *_grant(),
    # active | needs_authorization | set_aside
    sa.Column("status", sa.String(32), nullable=False),
    # Why this grant is set aside, or why a newer grant is set aside while this one remains in use.
    sa.Column("status_reason", sa.Text),
    sa.Column("refused_at", UtcTime),
    # The run (`Run.key`) that FeedAMP refused, at whose end is decided who is at fault.
    sa.Column("refused_in", sa.String(600)),
    # When FeedAMP first answered 401 to a token it had just issued. Cleared when a token works; if it happens again before
    # that, it counts as a refusal.
    sa.Column("disowned_at", UtcTime),
    sa.Column("reported_at", UtcTime),
    # Not used since revision 0005, which keeps them for processes of the version before that are still at work.
    sa.Column("lease_owner", sa.Text),
    sa.Column("lease_until", UtcTime),
    sa.Index("grants_by_connection", "conn_id", "refreshed_at"),
)

# A seller's second grant, which is not used. Role `replaced`: the previous grant, kept until the account of the new one
# is compared. Role `set_aside`: a new grant that was set aside while the previous one remains in use.
other_grants = _table(
    "other_grants",
    sa.Column("seller_id", _SELLER, primary_key=True),
    sa.Column("role", sa.String(16), nullable=False),
    *_grant(),
)

# Digests of some orders in a seller's account that this installation did not place for the seller. If two sellers
# have tokens of the same account, the same digests appear for both.
account_marks = _table(
    "account_marks",
    sa.Column("mark", sa.String(32), primary_key=True),
    sa.Column("seller_id", _SELLER, primary_key=True),
    sa.Column("mp_order_number", _NUMBER, nullable=False),
    sa.Index("account_marks_by_seller", "seller_id"),
    sa.Index("account_marks_by_number", "mp_order_number"),
)

token_fingerprints = _table(
    "token_fingerprints",
    sa.Column("fingerprint", sa.String(64), primary_key=True),
    sa.Column("seller_id", _SELLER, nullable=False),
    sa.Column("seen_at", UtcTime, nullable=False),
)

# The data key (`data_key`), encrypted; null until it is derived from the key of an installation of an earlier version. A
# second row is there only after an encryption key was lost.
data_keys = _table(
    "data_keys",
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("wrapped", sa.Text),
    sa.Column("made_at", UtcTime, nullable=False),
)

# When processes began to work with an encryption key as their first one: the first and the last time, roughly. The id is a
# keyed hash, from which the key cannot be found.
encryption_keys = _table(
    "encryption_keys",
    sa.Column("key_id", sa.String(32), primary_key=True),
    sa.Column("first_at", UtcTime, nullable=False),
    sa.Column("last_at", UtcTime, nullable=False),
)

authorizations = _table(
    "authorizations",
    sa.Column("state_digest", sa.String(64), primary_key=True),
    sa.Column("seller_id", _SELLER, nullable=False),
    sa.Column("conn_id", sa.Text, nullable=False),
    sa.Column("expires_at", UtcTime, nullable=False),
    sa.Column("used_at", UtcTime),
)

# In epoch seconds: the earliest moment at which any process may send the next request for this seller, the moment at which
# live work last wanted one, and that of the last one of work on history.
slots = _table(
    "slots",
    sa.Column("seller_id", _SELLER, primary_key=True),
    sa.Column("next_at", sa.Float, nullable=False),
    # When the next token call may be sent: those need no slot, only a pause that FeedAMP asked for in answer to one holds them back.
    sa.Column("token_call_at", sa.Float, nullable=False, server_default="0"),
    sa.Column("live_at", sa.Float, nullable=False, server_default="0"),
    sa.Column("history_at", sa.Float, nullable=False, server_default="0"),
    # The process that holds the rate and paces its requests itself; it has a lease of this name.
    sa.Column("held_by", sa.String(64)),
    # The process that sent the last request; null once it has ended.
    sa.Column("used_by", sa.String(64)),
    # When another process last sent requests in between, or asked the holder to give up the rate.
    sa.Column("shared_at", sa.Float, nullable=False, server_default="0"),
    sa.Column("wanted_at", sa.Float, nullable=False, server_default="0"),
    # The process for which the next slot is kept.
    sa.Column("turn_of", sa.String(64)),
    _partial("slots_held", "held_by", where="held_by IS NOT NULL"),
)

inbox_files = _table(
    "inbox_files",
    sa.Column("name", sa.String(1024), primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("checksum", sa.String(64), nullable=False),
    # The mark of the last change in the store's listing: while it is the same, the content is not read again.
    sa.Column("stamp", sa.Text, nullable=False, default=""),
    sa.Column("taken_at", UtcTime, nullable=False),
    sa.Column("rows_read", sa.Integer, nullable=False),
    sa.Column("rows_rejected", sa.Integer, nullable=False),
    # Why the file as a whole could not be read to its end; null if it was.
    sa.Column("fault", sa.Text),
)

orders = _table(
    "orders",
    *_order_key(),
    # `rules/order.Phase`
    sa.Column("phase", sa.String(16), nullable=False),
    # The body as first accepted; until then, the newest one delivered. JSON, without marketplace_state.
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("body_hash", sa.String(32), nullable=False),
    sa.Column("desired_state", sa.String(32), nullable=False),
    sa.Column("accepted_state", sa.String(32)),
    # whole | seen (adopted: what FeedAMP shows) | reduced (ended: no customer field left)
    sa.Column("body_kind", sa.String(16), nullable=False, server_default="whole"),
    # JSON list of all content hashes delivered so far, by which any repeat is recognized.
    sa.Column("delivered", sa.Text, nullable=False),
    sa.Column("purchase_date", UtcTime, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("source_row", sa.Integer, nullable=False),
    sa.Column("row_hash", sa.String(64), nullable=False),
    sa.Column("taken_at", UtcTime, nullable=False),
    sa.Column("reason", sa.Text),
    # A delivered state that conflicts with what the seller did; it is sent once the conflict has ended.
    sa.Column("conflicting_state", sa.String(32)),
    # When `place` may try the order again.
    sa.Column("next_try_at", UtcTime),
    # When the next extraction reads the order by number; null if it need not.
    sa.Column("read_back_at", UtcTime),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("first_put_at", UtcTime),
    sa.Column("placed_at", UtcTime),
    sa.Column("closing_state", sa.String(32)),
    sa.Column("closing_at", UtcTime),
    sa.Column("closed_at", UtcTime),
    # When an order that this installation did not place was adopted; null for all others.
    sa.Column("adopted_at", UtcTime),
    # When the order ended, whether or not this installation closed it; null while there is work left.
    sa.Column("ended_at", UtcTime),
    # Since when FeedAMP has answered that it does not have the order; null while it has it, or was not asked.
    sa.Column("missing_since", UtcTime),
    # Units in the newest snapshot of a closed order, as JSON: line -> [shipped, cancelled]; null if the order was closed
    # before this column existed. The next two columns: shipped units over all lines, and when the snapshot was read.
    sa.Column("closed_units", sa.Text),
    sa.Column("closed_units_shipped", sa.BigInteger),
    sa.Column("closed_units_at", UtcTime),
    # How many shipped units of a cancelled order, or that none of a shipped one, a person has acknowledged; when, who, and why.
    sa.Column("acknowledged_shipped", sa.BigInteger),
    sa.Column("acknowledged_at", UtcTime),
    sa.Column("acknowledged_by", sa.Text),
    sa.Column("acknowledge_reason", sa.Text),
    sa.Index("orders_ended", "body_kind", "ended_at"),
    sa.Index("orders_by_day", "purchase_date"),
    # Finds the seller of an order that appears in an account, and orders by how their numbers begin: Postgres compares texts by
    # the rules of a language, and finds a beginning only in an index that compares them by character.
    sa.Index(
        "orders_by_number",
        "mp_order_number",
        "purchase_date",
        postgresql_ops={"mp_order_number": "varchar_pattern_ops"},
    ),
    # What is to do, by seller; counts of the pages by phase and by seller are read from it alone, too.
    sa.Index("orders_by_phase", "phase", "seller_id", "taken_at"),
    sa.Index("orders_by_delivery", "taken_at"),
    # Orders that have a reason are few. The reason itself may be longer than what Postgres takes into an index.
    _partial("orders_with_reason", "phase", where="reason IS NOT NULL"),
    _partial("orders_by_placing", "placed_at", where="adopted_at IS NULL"),
    _partial("orders_by_closing", "closed_at", where="closed_at IS NOT NULL"),
    _partial("orders_to_read_back", "seller_id", "mp_order_number", where="read_back_at IS NOT NULL"),
    _partial("orders_missing", "seller_id", "mp_order_number", where="missing_since IS NOT NULL"),
    _partial("orders_cancelled_but_shipped", "seller_id", "mp_order_number", where=CANCELLED_BUT_SHIPPED),
    _partial("orders_shipped_but_withdrawn", "seller_id", "mp_order_number", where=SHIPPED_BUT_WITHDRAWN),
)

snapshots = _table(
    "snapshots",
    *_order_key(),
    sa.Column("read_at", UtcTime, nullable=False),
    sa.Column("snapshot_hash", sa.String(32), nullable=False),
    sa.Column("snapshot", sa.Text, nullable=False),
    sa.Column("validated_hash", sa.String(32)),
    # The result of the last validation: whether the order can be closed, or what it waits for.
    sa.Column("closable", sa.Boolean, nullable=False, default=False),
    sa.Column("waits_for", sa.Text),
    sa.Column("needs_person", sa.Boolean, nullable=False, default=False),
    # Since when FeedAMP has listed an error that the check finds resolved (error_clear_days).
    sa.Column("error_lingers_since", UtcTime),
    _partial("snapshots_changed", "seller_id", "mp_order_number", where=IS_CHANGED),
    _partial("snapshots_closable", "seller_id", "mp_order_number", where=IS_CLOSABLE),
    _partial("snapshots_stuck", "seller_id", "mp_order_number", where=MAY_BE_STUCK),
    _partial("snapshots_waiting", "waits_for", where=IS_WAITING),
)

findings = _table(
    "findings",
    sa.Column("finding_id", sa.String(32), primary_key=True),
    sa.Column("seller_id", _SELLER, nullable=False),
    sa.Column("mp_order_number", _NUMBER, nullable=False),
    sa.Column("mp_line_number", sa.Text),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("severity", sa.String(16), nullable=False),
    sa.Column("api_code", sa.Text),
    sa.Column("carrier", sa.Text),
    sa.Column("tracking_number", sa.Text),
    sa.Column("message", sa.Text, nullable=False),
    # held | to_report | reported | resolved | waived
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("line_hash", sa.String(32), nullable=False),
    sa.Column("found_at", UtcTime, nullable=False),
    # Set before the POST is sent. Without a later `reported_at`, it is unknown whether the report arrived.
    sa.Column("intent_at", UtcTime),
    sa.Column("reported_at", UtcTime),
    # When FeedAMP listed the reported error on the order.
    sa.Column("listed_at", UtcTime),
    sa.Column("resolved_at", UtcTime),
    sa.Column("note", sa.Text),
    sa.Index("findings_by_order", "seller_id", "mp_order_number"),
    sa.Index("findings_by_seller", "state", "seller_id", "found_at"),
    # Those under another code than `error_codes` has now are found from this index alone, which must have its `state` for that.
    _partial("findings_held", "state", "seller_id", "kind", "api_code", "mp_order_number", where=IS_HELD),
)

# What happened to each order, as in the warehouse; the pages and `orders show` read it here. Purged some time after the
# order has ended. The row without an order says since when events are recorded; a new installation has none.
order_events = _table(
    "order_events",
    *_order_key(),
    sa.Column("event_id", sa.String(32), primary_key=True),
    sa.Column("occurred_at", UtcTime, nullable=False),
    # `rules/order_story.Kind`
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("details", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text),
    # How many more units a snapshot shows as shipped than the one before; null for other kinds.
    sa.Column("units_shipped", sa.BigInteger),
    # Counts by hour and seller are read from this index alone.
    sa.Index("order_events_by_time", "occurred_at", "kind", "seller_id", "units_shipped"),
    sqlite_with_rowid=False,
)

# Parcels and recipients as keyed hashes, for the `shared_tracking` check over 90 days.
tracking_uses = _table(
    "tracking_uses",
    *_order_key(),
    sa.Column("tracking_hash", sa.String(32), primary_key=True),
    sa.Column("recipient_hash", sa.String(32), nullable=False),
    sa.Column("seen_at", UtcTime, nullable=False),
    sa.Index("tracking_by_number", "seller_id", "tracking_hash"),
)

rejected_orders = _table(
    "rejected_orders",
    sa.Column("source", sa.String(1024), primary_key=True),
    sa.Column("row_number", sa.Integer, primary_key=True),
    sa.Column("row_hash", sa.String(64), primary_key=True),
    sa.Column("seller_id", sa.Text),
    sa.Column("mp_order_number", sa.Text),
    sa.Column("stage", sa.String(16), nullable=False),
    sa.Column("reasons", sa.Text, nullable=False),
    sa.Column("raw", sa.Text, nullable=False),
    sa.Column("rejected_at", UtcTime, nullable=False),
    sa.Column("superseded_at", UtcTime),
    # When a person dismissed the reject as needing no action, and why.
    sa.Column("dismissed_at", UtcTime),
    sa.Column("dismiss_reason", sa.Text),
    sa.Index("rejected_by_order", "seller_id", "mp_order_number"),
    _partial("rejected_open", "rejected_at", where="superseded_at IS NULL AND dismissed_at IS NULL"),
)

# What was erased (`state/erasures.py`): keyed marks of sellers and orders. They stay, so that nothing brings the data back.
erasures = _table(
    "erasures",
    sa.Column("mark", sa.String(32), primary_key=True),
    # seller | order
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("asked_by", sa.Text),
    sa.Column("asked_at", UtcTime, nullable=False),
    sa.Column("state_done_at", UtcTime),
    sa.Column("lake_done_at", UtcTime),
    sa.Column("warehouse_done_at", UtcTime),
    sa.Column("done_at", UtcTime),
    # JSON: store -> what went -> how many.
    sa.Column("counts", sa.Text, nullable=False),
    # Of an order: the mark that its seller has or would have, erased or not.
    sa.Column("seller_mark", sa.String(32)),
    # When another erasure took the place of this one: its mark is of a lost data key, or its whole seller was erased.
    sa.Column("renewed_at", UtcTime),
)

# Switches that a person has turned on, by name (`read_only`).
switches = _table(
    "switches",
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("since", UtcTime, nullable=False),
    sa.Column("switched_by", sa.Text),
    sa.Column("reason", sa.Text),
)

# What people were notified of and what still lasts, such as `grant_refused/S1`.
notices = _table(
    "notices",
    sa.Column("notice", sa.String(300), primary_key=True),
    sa.Column("told_at", UtcTime, nullable=False),
)

watermarks = _table(
    "watermarks",
    sa.Column("seller_id", _SELLER, primary_key=True),
    sa.Column("watermark", UtcTime, nullable=False),
    sa.Column("moved_at", UtcTime, nullable=False),
)

# Where an extraction left off in a seller's list (`unfinished_reads.LeftOff`).
reads_left_off = _table(
    "reads_left_off",
    sa.Column("seller_id", _SELLER, primary_key=True),
    sa.Column("content", sa.Text, nullable=False),
)

# Orders that an extraction could not read, with the empty number if they name none.
unread_orders = _table(
    "unread_orders",
    *_order_key(),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("since", UtcTime, nullable=False),
)

manifests = _table(
    "manifests",
    sa.Column("path", sa.String(1024), primary_key=True),
    sa.Column("planned_at", UtcTime, nullable=False),
    # When it had been read to its end, and its snapshots and watermarks taken into the state.
    sa.Column("taken_at", UtcTime),
    # When the warehouse had its rows.
    sa.Column("loaded_at", UtcTime),
)

# The full snapshot of a table that was last written to the lake.
full_snapshots = _table(
    "full_snapshots",
    sa.Column("table_name", sa.String(64), primary_key=True),
    sa.Column("content_hash", sa.String(64), nullable=False),
    sa.Column("taken_at", UtcTime, nullable=False),
    # Null if that manifest is lost, so that the next load writes the snapshot again.
    sa.Column("manifest", sa.String(1024)),
)

# Work that only one process may do at a time, such as placing one order, refreshing one grant, or loading.
leases = _table(
    "leases",
    sa.Column("name", sa.String(300), primary_key=True),
    sa.Column("owner", sa.String(32), nullable=False),
    # Only in rows of a version before revision 0005, which have no heartbeat: when the lease ends.
    sa.Column("until", UtcTime),
    # Counts the heartbeats of the owner.
    sa.Column("beat", sa.Integer),
)

# The last transaction of each writer on a server, by which a writer whose commit got no answer sees whether it took
# effect. Ids of transactions do not tell: after a crash, the server may use the same id for another one.
commit_marks = _table(
    "commit_marks",
    sa.Column("writer", sa.String(32), primary_key=True),
    sa.Column("mark", sa.String(32), nullable=False),
    sa.Column("set_at", UtcTime, nullable=False),
)

# Totals of all tries of a task: a retry adds to them. Kept for 30 days.
step_runs = _table(
    "step_runs",
    sa.Column("run_id", sa.String(250), primary_key=True),
    sa.Column("step", sa.String(16), primary_key=True),
    sa.Column("shard", sa.Integer, primary_key=True),
    sa.Column("started_at", UtcTime, nullable=False),
    sa.Column("pages", sa.Integer, nullable=False),
    sa.Column("requests", sa.Integer, nullable=False),
    sa.Column("orders", sa.Integer, nullable=False),
    # How many sellers the newest try worked for, and why some have work left (`troubles.Told`); null if none has.
    sa.Column("sellers", sa.Integer),
    sa.Column("problems", sa.Text),
    # What the newest try found, for `gate`, as JSON; only `reconcile` has it (`reconciled_days.Counts`).
    sa.Column("outcome", sa.Text),
)

# What the newest reconciliation of a UTC day found for a seller. The row with the empty seller id says that a run covered
# all sellers that could be read then. `differences` and `repaired`: JSON, kind -> count. Kept as `retention` says.
reconciliation_days = _table(
    "reconciliation_days",
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("seller_id", _SELLER, primary_key=True),
    sa.Column("run_id", sa.String(250), nullable=False),
    sa.Column("compared", sa.Integer, nullable=False),
    sa.Column("differences", sa.Text, nullable=False),
    sa.Column("repaired", sa.Text, nullable=False),
    sa.Column("remaining", sa.Integer, nullable=False),
    sa.Column("unread", sa.Integer, nullable=False),
    sa.Column("checked_at", UtcTime, nullable=False),
    # Earlier than `checked_at` if the comparison was tried again; null in rows of earlier versions.
    sa.Column("planned_at", UtcTime),
    sa.Index("reconciliation_days_by_age", "checked_at"),
)

# What the warehouse says of each seller, as of the last load of a UTC day: open orders that are late, and the figures of
# its view `seller_scorecards` over 30 days. The row with the empty seller id has no figures: it says when they were read, and
# how long that took. Kept as `retention` says.
scorecards = _table(
    "scorecards",
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("seller_id", _SELLER, primary_key=True),
    sa.Column("late_orders", sa.BigInteger),
    sa.Column("orders", sa.BigInteger),
    sa.Column("cancel_rate", sa.Float),
    sa.Column("orders_due", sa.BigInteger),
    sa.Column("late_rate", sa.Float),
    sa.Column("shipments_judged", sa.BigInteger),
    sa.Column("valid_tracking_rate", sa.Float),
    sa.Column("amazon_late_ok", sa.Boolean),
    sa.Column("amazon_cancel_ok", sa.Boolean),
    sa.Column("amazon_tracking_ok", sa.Boolean),
    sa.Column("walmart_on_time_ok", sa.Boolean),
    sa.Column("walmart_cancel_ok", sa.Boolean),
    sa.Column("walmart_tracking_ok", sa.Boolean),
    sa.Column("measured_at", UtcTime),
    sa.Column("took_s", sa.Float),
    sqlite_with_rowid=False,
)

# The differences that such a comparison found, as in the warehouse; at most `DIFFERENCES_KEPT` of a day and seller. The key
# has the order before the hash of the field, so that a page is read in the order of the numbers.
reconciliation_differences = _table(
    "reconciliation_differences",
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("seller_id", _SELLER, primary_key=True),
    sa.Column("run_id", sa.String(250), primary_key=True),
    sa.Column("mp_order_number", _NUMBER, primary_key=True),
    sa.Column("field_hash", sa.String(32), primary_key=True),
    sa.Column("field", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("ledger_value", sa.Text),
    sa.Column("feedamp_value", sa.Text),
    sa.Column("warehouse_value", sa.Text),
    sa.Column("found_at", UtcTime, nullable=False),
    sa.Column("repaired_at", UtcTime),
    sa.Index("reconciliation_differences_by_age", "found_at"),
    sqlite_with_rowid=False,
)

# Rows on their way to the lake, written in the transaction that made them true; `load` empties it.
outbox = _table(
    "outbox",
    # SQLite autoincrements only a plain INTEGER key.
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("table_name", sa.String(64), nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("recorded_at", UtcTime, nullable=False),
    # The manifest that will hold the row, once `load` has claimed it.
    sa.Column("manifest", sa.String(1024)),
    sa.Index("outbox_by_manifest", "manifest"),
    sqlite_autoincrement=True,
)
