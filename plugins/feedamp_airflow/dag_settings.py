"""Settings that all DAGs share, so that each DAG file has only what is specific to it."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from airflow.sdk import Param, conf
from airflow.sdk import task as task_of

from feedamp.run import shard_name
from feedamp_airflow.retries import FeedAmpRetryPolicy

# Fixed, so that parsing a file twice gives the same DAG; early enough for any backfill.
START = datetime.fromisoformat("2010-01-01T00:00:00+00:00")
# The name of a mapped task in the UI.
SELLERS = "{{ sellers_of(task.op_kwargs) }}"


def common(**more: Any) -> dict[str, Any]:
    """Keyword arguments of every DAG; `more` are defaults of its tasks."""
    return {
        "start_date": START,
        "catchup": False,
        "max_active_runs": 1,
        "tags": ["feedamp"],
        "user_defined_macros": {"sellers_of": shard_name},
        "default_args": {
            "owner": "feedamp",
            "retries": 2,
            "retry_delay": timedelta(minutes=1),
            "retry_policy": FeedAmpRetryPolicy(),
            **more,
        },
    }


def task(function: Callable[..., Any], **options: Any) -> Any:
    """Airflow's `task` for a function that returns counts, kept as one XCom.

    Of a function whose annotation promises a dict Airflow would keep each value a second time, by one request each.
    """
    return task_of(multiple_outputs=False, **options)(function)


def shown(runbook: str, section: str, **pages: str) -> str:
    """What the UI shows of a DAG's docstring: title, first paragraph, backfill and red; then its pages, by path and name.

    The rest is where it is needed: each param is explained in the form, everything else in `section` of docs/runbook.md.
    """
    title, first, *more = runbook.strip().split("\n\n")
    kept = [text for text in more if text.startswith(("**Backfill**", "**Red**"))]
    base = urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/") + "/feedamp"
    links = ", ".join(f"[{name}]({base}/{path})" for path, name in {"": "overview", **pages}.items())
    return "\n\n".join([title, first, *kept, f"Pages: {links}. More: docs/runbook.md, section `{section}`."])


def params(**more: Param) -> dict[str, Param]:
    """`sellers` and `dry_run`, which all DAGs have, and the DAG's other params."""
    return {
        "sellers": Param(
            [],
            type=["array", "null"],  # the form sends null for an empty field
            items={"type": "string"},
            title="Sellers",
            description="Ids of the sellers to process, one per line; empty: all active ones.",
        ),
        "dry_run": Param(
            False,
            type="boolean",
            title="Dry run",
            description="Nothing is sent or written but token refreshes; the plan is logged.",
        ),
        **more,
    }


def reconcile_params() -> dict[str, Param]:
    """`day`, or `from` and `to`: the days that a run by hand is to compare; and when the run is red."""
    meant = {
        "day": "The UTC day to compare; empty: the last one that was over at the run's date.",
        "from": "Instead of a day: the first UTC day of a range.",
        "to": "The last UTC day of the range, included.",
    }
    days = {
        name: Param(
            None,
            type=["null", "string"],
            format="date",
            title=name.capitalize(),
            description=f"By hand only. {text}",
        )
        for name, text in meant.items()
    }
    fail_above = Param(
        None,
        type=["null", "integer"],
        minimum=0,
        title="Fail above",
        description="Differences that may be left before the run turns red. Empty: it stays green.",
    )
    return {**days, "fail_above": fail_above}
