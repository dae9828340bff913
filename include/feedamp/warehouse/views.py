"""Views for analytics, each declared once: name, meaning, columns, and SQL that every engine accepts.

The moment at which ages and windows end is an argument, so that a view can be tested for any moment; in the warehouse
it is `now()`. No view depends on the time zone of a reader's session: windows are whole hours (30 days are 720), and an
age is a difference of epochs, since DuckDB subtracts moments by the session's calendar.
"""

from dataclasses import dataclass, field

from feedamp.column_types import Type
from feedamp.tables import NUMBER, ORDERS, RECONCILIATIONS, SCHEMA, SELLER, SHIPMENTS, Column, count
from feedamp.warehouse.engine import META

NOW = "now()"
# What the marketplaces publish: by flag of `seller_scorecards`, when it is true.
LIMITS = {
    "amazon_late_ok": "below 4 %",
    "amazon_cancel_ok": "below 2.5 %",
    "amazon_tracking_ok": "above 95 %",
    "walmart_on_time_ok": "90 % or more",
    "walmart_cancel_ok": "2 % or less",
    "walmart_tracking_ok": "99 % or more",
}


@dataclass(frozen=True)
class View:
    """One view; `sql` contains `{now}` in place of the moment."""

    name: str
    meaning: str
    columns: tuple[Column, ...]
    sql: str = field(repr=False)

    def select(self, now: str = NOW) -> str:
        """The query, as of a moment given as SQL."""
        return self.sql.replace("{now}", now)


# The orders that the views count; `COUNTED_ORDERS` describes them.
_COUNTED = f"""
    SELECT orders.*,
           coalesce(marketplace_state, '') NOT IN ('SHIPPED', 'CANCELLED') AND units_pending > 0 AS is_open,
           CAST(latest_ship_date AT TIME ZONE 'UTC' AS DATE) AS ship_by_day
    FROM {SCHEMA}.orders
    WHERE NOT coalesce(is_marketplace_fulfilled, false)
      AND coalesce(marketplace_state, '') <> 'PENDING'
      AND units_ordered > 0
      AND NOT (coalesce(marketplace_state, '') = 'CANCELLED' AND units_cancelled = 0)"""

COUNTED_ORDERS = """\
A **counted order** is one that the seller is to ship: released (`marketplace_state` is not `PENDING`), not shipped by
the marketplace itself, with at least one unit ordered, and not cancelled by the marketplace alone (`CANCELLED`
without a unit that the seller cancelled). An order that was not read from FeedAMP yet counts. An order is **open** while
units are pending and its state is neither `SHIPPED` nor `CANCELLED`. Sellers give the day of shipping without a zone;
it is compared with the UTC day of `latest_ship_date`, so in doubt a parcel counts as on time."""


def _as_in_orders(name: str) -> Column:
    return next(column for column in ORDERS.columns if column.name == name)


LATE_ORDERS = View(
    "late_orders",
    "Counted orders that are open after `latest_ship_date`: a parcel is still missing. An order counts "
    "from that exact moment, not from the end of the day.",
    (
        SELLER,
        NUMBER,
        _as_in_orders("purchase_date"),
        _as_in_orders("latest_ship_date"),
        _as_in_orders("units_ordered"),
        _as_in_orders("units_pending"),
        Column("hours_late", Type.NUMBER, "Hours since `latest_ship_date`."),
    ),
    f"""
WITH counted AS ({_COUNTED})
SELECT seller_id, mp_order_number, purchase_date, latest_ship_date, units_ordered, units_pending,
       CAST(extract(epoch FROM {{now}}) - extract(epoch FROM latest_ship_date) AS DOUBLE PRECISION) / 3600
           AS hours_late
FROM counted WHERE is_open AND latest_ship_date < {{now}}""",
)

TIME_TO_SHIP = View(
    "time_to_ship",
    "One row per counted order with a dated shipment: whole days from the UTC day of `purchase_date` to the day of "
    "shipping.",
    (
        SELLER,
        NUMBER,
        _as_in_orders("purchase_date"),
        Column("first_shipped_on", Type.DATE, "Day of the first shipment."),
        Column(
            "last_shipped_on",
            Type.DATE,
            "Day of the last shipment; null while units are pending or if a shipment has no date.",
        ),
        count("days_to_first_shipment", "From purchase to the first shipment; below 0 if the dates say so."),
        count("days_to_last_shipment", "From purchase to the last shipment; null like `last_shipped_on`."),
    ),
    f"""
WITH counted AS ({_COUNTED}),
sent AS (
    SELECT counted.seller_id, counted.mp_order_number, counted.purchase_date,
           CAST(counted.purchase_date AT TIME ZONE 'UTC' AS DATE) AS purchased_on,
           min(shipments.shipped_date) AS first_shipped_on,
           CASE WHEN counted.units_pending = 0 AND count(*) = count(shipments.shipped_date)
                THEN max(shipments.shipped_date) END AS last_shipped_on
    FROM counted
    JOIN {SCHEMA}.shipments
      ON shipments.seller_id = counted.seller_id AND shipments.mp_order_number = counted.mp_order_number
    GROUP BY counted.seller_id, counted.mp_order_number, counted.purchase_date, counted.units_pending
)
SELECT seller_id, mp_order_number, purchase_date, first_shipped_on, last_shipped_on,
       CAST(first_shipped_on - purchased_on AS BIGINT) AS days_to_first_shipment,
       CAST(last_shipped_on - purchased_on AS BIGINT) AS days_to_last_shipment
FROM sent WHERE first_shipped_on IS NOT NULL""",
)

SELLER_SCORECARDS = View(
    "seller_scorecards",
    "One row per seller and window of 30 and 60 days: what the big marketplaces measure. A window holds the counted "
    "orders purchased from exactly that long ago until now. A seller without counted orders has a row of zeros and nulls.",
    (
        SELLER,
        count("window_days", "30 or 60."),
        count("orders", "Counted orders."),
        count("orders_cancelled", "Those of which the seller cancelled at least one unit."),
        Column("cancel_rate", Type.NUMBER, "orders_cancelled / orders."),
        count(
            "orders_due",
            "Counted orders with a `latest_ship_date` that are shipped as far as they will be (not open, a unit "
            "shipped), or still open when that day is over. An order that was cancelled completely is not due.",
        ),
        count(
            "orders_late",
            "Due orders whose last shipment is dated after the day of `latest_ship_date`, or that are still open. "
            "A shipment without a date is not late.",
        ),
        Column("late_rate", Type.NUMBER, "orders_late / orders_due."),
        Column("on_time_rate", Type.NUMBER, "1 - late_rate."),
        count(
            "shipments_judged",
            "Rows of `shipments` of counted orders that are `valid`, `invalid` or have no tracking number. "
            "Other `unverified` ones are left out, since they may be right or wrong. A parcel with units of two lines is two rows.",
        ),
        count("shipments_valid", "Those whose tracking number is `valid`."),
        Column("valid_tracking_rate", Type.NUMBER, "shipments_valid / shipments_judged."),
        Column(
            "amazon_late_ok",
            Type.BOOLEAN,
            f"late_rate {LIMITS['amazon_late_ok']}; like all of these flags, null if there is nothing to measure.",
        ),
        Column("amazon_cancel_ok", Type.BOOLEAN, f"cancel_rate {LIMITS['amazon_cancel_ok']}."),
        Column("amazon_tracking_ok", Type.BOOLEAN, f"valid_tracking_rate {LIMITS['amazon_tracking_ok']}."),
        Column("walmart_on_time_ok", Type.BOOLEAN, f"on_time_rate {LIMITS['walmart_on_time_ok']}."),
        Column("walmart_cancel_ok", Type.BOOLEAN, f"cancel_rate {LIMITS['walmart_cancel_ok']}."),
        Column("walmart_tracking_ok", Type.BOOLEAN, f"valid_tracking_rate {LIMITS['walmart_tracking_ok']}."),
    ),
    f"""
WITH windows AS (
    SELECT CAST(30 AS BIGINT) AS window_days, {{now}} - INTERVAL '720 hours' AS begins_at
    UNION ALL SELECT CAST(60 AS BIGINT), {{now}} - INTERVAL '1440 hours'
),
counted AS ({_COUNTED}),
sent AS (
    SELECT seller_id, mp_order_number, max(shipped_date) AS last_shipped_on,
           count(*) FILTER (WHERE tracking_check = 'valid') AS valid,
           count(*) FILTER (WHERE tracking_check IN ('valid', 'invalid')
                               OR coalesce(trim(tracking_number), '') = '') AS judged
    FROM {SCHEMA}.shipments GROUP BY seller_id, mp_order_number
),
measured AS (
    SELECT counted.seller_id, counted.purchase_date, counted.units_cancelled > 0 AS cancelled,
           sent.valid, sent.judged,
           CASE WHEN counted.is_open THEN CAST({{now}} AT TIME ZONE 'UTC' AS DATE) > counted.ship_by_day
                ELSE counted.units_shipped > 0 AND counted.ship_by_day IS NOT NULL END AS due,
           counted.is_open OR sent.last_shipped_on > counted.ship_by_day AS late_if_due
    FROM counted
    LEFT JOIN sent ON sent.seller_id = counted.seller_id AND sent.mp_order_number = counted.mp_order_number
),
totals AS (
    SELECT sellers.seller_id, windows.window_days, count(measured.seller_id) AS orders,
           count(measured.seller_id) FILTER (WHERE measured.cancelled) AS orders_cancelled,
           count(measured.seller_id) FILTER (WHERE measured.due) AS orders_due,
           count(measured.seller_id) FILTER (WHERE measured.due AND measured.late_if_due) AS orders_late,
           CAST(coalesce(sum(measured.judged), 0) AS BIGINT) AS shipments_judged,
           CAST(coalesce(sum(measured.valid), 0) AS BIGINT) AS shipments_valid
    FROM (SELECT DISTINCT seller_id FROM {SCHEMA}.orders) sellers
    CROSS JOIN windows
    LEFT JOIN measured
           ON measured.seller_id = sellers.seller_id
          AND measured.purchase_date >= windows.begins_at AND measured.purchase_date <= {{now}}
    GROUP BY sellers.seller_id, windows.window_days
)
SELECT seller_id, window_days, orders, orders_cancelled,
       CASE WHEN orders > 0 THEN CAST(orders_cancelled AS DOUBLE PRECISION) / orders END AS cancel_rate,
       orders_due, orders_late,
       CASE WHEN orders_due > 0 THEN CAST(orders_late AS DOUBLE PRECISION) / orders_due END AS late_rate,
       CASE WHEN orders_due > 0
            THEN CAST(orders_due - orders_late AS DOUBLE PRECISION) / orders_due END AS on_time_rate,
       shipments_judged, shipments_valid,
       CASE WHEN shipments_judged > 0
            THEN CAST(shipments_valid AS DOUBLE PRECISION) / shipments_judged END AS valid_tracking_rate,
       CASE WHEN orders_due > 0 THEN orders_late * 100 < orders_due * 4 END AS amazon_late_ok,
       CASE WHEN orders > 0 THEN orders_cancelled * 1000 < orders * 25 END AS amazon_cancel_ok,
       CASE WHEN shipments_judged > 0 THEN shipments_valid * 100 > shipments_judged * 95 END AS amazon_tracking_ok,
       CASE WHEN orders_due > 0 THEN orders_late * 100 <= orders_due * 10 END AS walmart_on_time_ok,
       CASE WHEN orders > 0 THEN orders_cancelled * 100 <= orders * 2 END AS walmart_cancel_ok,
       CASE WHEN shipments_judged > 0 THEN shipments_valid * 100 >= shipments_judged * 99 END AS walmart_tracking_ok
FROM totals""",
)

OPEN_FINDINGS_BY_AGE = View(
    "open_findings_by_age",
    "One row per seller and kind of finding that is neither resolved nor waived, counted by age since `found_at`. "
    "A finding that is exactly 24 hours old is in `up_to_1_day`.",
    (
        SELLER,
        Column("kind", Type.TEXT, "See docs/runbook.md."),
        Column("severity", Type.TEXT, "error blocks closing, warning never does."),
        count("findings", "All of them."),
        count("up_to_1_day", "At most 24 hours old."),
        count("up_to_7_days", "Older than that, at most 7 days."),
        count("up_to_30_days", "Older than that, at most 30 days."),
        count("older", "Older than 30 days."),
        Column("oldest_found_at", Type.TIMESTAMP, "When the oldest of them was first seen."),
    ),
    f"""
SELECT seller_id, kind, severity, count(*) AS findings,
       count(*) FILTER (WHERE found_at >= {{now}} - INTERVAL '24 hours') AS up_to_1_day,
       count(*) FILTER (WHERE found_at < {{now}} - INTERVAL '24 hours'
                          AND found_at >= {{now}} - INTERVAL '168 hours') AS up_to_7_days,
       count(*) FILTER (WHERE found_at < {{now}} - INTERVAL '168 hours'
                          AND found_at >= {{now}} - INTERVAL '720 hours') AS up_to_30_days,
       count(*) FILTER (WHERE found_at < {{now}} - INTERVAL '720 hours') AS older,
       min(found_at) AS oldest_found_at
FROM {SCHEMA}.findings WHERE state NOT IN ('resolved', 'waived')
GROUP BY seller_id, kind, severity""",
)


def judged(prefix: str = "") -> str:
    """valid, invalid or unverified, or `missing` without a tracking number, as SQL."""
    blank = f"coalesce(trim({prefix}tracking_number), '') = ''"
    return f"CASE WHEN {blank} THEN 'missing' ELSE {prefix}tracking_check END"


_FIRST_AND_NOW = f"""
    SELECT first.seller_id, first.mp_order_number, first.mp_line_number, first.shipment_index, first.reported_at,
           first.tracking_check AS first_check,
           CASE WHEN shown.seller_id IS NOT NULL THEN {judged("shown.")} END AS check_now
    FROM {META}.first_reports first
    LEFT JOIN {SCHEMA}.shipments shown
           ON shown.seller_id = first.seller_id AND shown.mp_order_number = first.mp_order_number
          AND shown.mp_line_number = first.mp_line_number AND shown.shipment_index = first.shipment_index"""

SHIPMENT_REPORTS = View(
    "shipment_reports",
    "One row per shipment that FeedAMP ever showed: its tracking number as first reported, and as it is now.",
    (
        *SHIPMENTS.columns[:4],
        Column("reported_at", Type.TIMESTAMP, "When the request was sent that first returned the shipment."),
        Column("first_check", Type.TEXT, "Check of the first number: valid, invalid, unverified or missing."),
        Column("check_now", Type.TEXT, "Check of the current one; null if the shipment has disappeared."),
    ),
    _FIRST_AND_NOW,
)

TRACKING_QUALITY = View(
    "tracking_quality",
    "One row per seller and UTC day of `shipment_reports.reported_at`: valid tracking numbers on first report and now. "
    "Judged are those that are valid, invalid or missing.",
    (
        SELLER,
        Column("reported_on", Type.DATE, "The UTC day on which the shipments were first read."),
        count("shipments", "All of them."),
        count("judged_first", "Those whose first number was valid, invalid or missing."),
        count("valid_first", "Those whose first number was valid."),
        Column("valid_rate_first", Type.NUMBER, "valid_first / judged_first."),
        count("judged_now", "Those that are still there with a valid, invalid or missing number."),
        count("valid_now", "Those whose number is valid now."),
        Column("valid_rate_now", Type.NUMBER, "valid_now / judged_now."),
    ),
    f"""
WITH reports AS ({_FIRST_AND_NOW}),
counted AS (
    SELECT seller_id, CAST(reported_at AT TIME ZONE 'UTC' AS DATE) AS reported_on, count(*) AS shipments,
           count(*) FILTER (WHERE first_check <> 'unverified') AS judged_first,
           count(*) FILTER (WHERE first_check = 'valid') AS valid_first,
           count(*) FILTER (WHERE check_now <> 'unverified') AS judged_now,
           count(*) FILTER (WHERE check_now = 'valid') AS valid_now
    FROM reports GROUP BY seller_id, CAST(reported_at AT TIME ZONE 'UTC' AS DATE)
)
SELECT seller_id, reported_on, shipments, judged_first, valid_first,
       CASE WHEN judged_first > 0
            THEN CAST(valid_first AS DOUBLE PRECISION) / judged_first END AS valid_rate_first,
       judged_now, valid_now,
       CASE WHEN judged_now > 0 THEN CAST(valid_now AS DOUBLE PRECISION) / judged_now END AS valid_rate_now
FROM counted""",
)

_FOUND = ("day", "kind", "ledger_value", "feedamp_value", "warehouse_value", "found_at", "repaired_at")

CURRENT_DIFFERENCES = View(
    "current_differences",
    "Differences of the newest comparison of each day and seller, repaired or left, without `not_extracted_yet`. One that a later "
    "comparison did not find again is only in `reconciliations`, also if that was the same run, done again.",
    tuple(c for c in RECONCILIATIONS.columns if c.name in (*RECONCILIATIONS.key, *_FOUND)),
    f"""
SELECT found.run_id, found.seller_id, found.mp_order_number, found.field, {", ".join(f"found.{name}" for name in _FOUND)}
FROM {SCHEMA}.reconciliations found
JOIN {SCHEMA}.reconciliation_days days
  ON days.day = found.day AND days.seller_id = found.seller_id AND days.run_id = found.run_id
WHERE found.kind <> 'not_extracted_yet'
  AND (found.found_at >= days.checked_at
       OR (found.repaired_at IS NOT NULL AND found.found_at >= COALESCE(days.planned_at, found.found_at)))""",
)

VIEWS = (
    LATE_ORDERS,
    TIME_TO_SHIP,
    SELLER_SCORECARDS,
    OPEN_FINDINGS_BY_AGE,
    SHIPMENT_REPORTS,
    TRACKING_QUALITY,
    CURRENT_DIFFERENCES,
)
