"""Inbox files and query rows -> ledger; bad rows -> rejected_orders with all reasons."""

import logging

from feedamp.api.clock_check import doubt_by_state
from feedamp.errors import ConfigurationError, FeedAmpError, TransientError
from feedamp.inbox import Taken, discover
from feedamp.resources import Resources
from feedamp.run import Run
from feedamp.state import inbox_files
from feedamp.steps.garbage import collected_seldom
from feedamp.steps.place_orders.read_inbox_file import take_file
from feedamp.steps.place_orders.read_query import take_query
from feedamp.steps.step_end import record_run
from feedamp.steps.step_result import StepResult, unexpected

log = logging.getLogger(__name__)


@collected_seldom()
def intake(resources: Resources, run: Run) -> StepResult:
    """Takes every new or changed file of the inbox in name order, then the rows of the query, if one is configured.

    `result.orders` counts rows read, `result.rejected` rows rejected; those of a file that another run has taken to its end
    meanwhile count there. Safe to repeat: a file counts as taken once all
    its rows are in the ledger or rejected; a row that was taken before changes nothing. A folder that is away, although
    files were taken before, leaves the step incomplete: it must not look like one without orders.
    """
    doubt_by_state(resources.state)
    started_at = resources.state.now()
    result = StepResult("intake")
    with resources.state.read() as connection:
        taken = [Taken(*version) for version in inbox_files.taken_files(connection)]
    found = discover(resources.inbox, now=started_at, settle_s=resources.settings.inbox_settle_s, seen=taken)
    # Who has moved on to a query may have removed the folder.
    if not found.exists and taken and resources.inbox.is_local and resources.order_query is None:
        message = (
            f"The folder {resources.settings.inbox_url} is away, although files were taken from the inbox before: mount it, or "
            "make an empty one if no more files will come."
        )
        result.record_failure("inbox_url", TransientError(message))
    elif not found.exists:
        log.warning("The inbox %s does not exist yet.", resources.inbox.url)
    for name in found.waiting:
        log.info("%s is still being written; the next run takes it.", name)
    for name, reason in found.unreadable.items():
        result.record_failure(name, FeedAmpError(reason))
    for file in found.files:
        try:
            take_file(resources, run, file, result, since=started_at)
        except FeedAmpError as error:
            result.record_failure(file.name, error)
        except Exception as error:  # noqa: BLE001 - logged with its traceback; the other files are read
            result.record_failure(file.name, unexpected(error), cause=error)
    result.extra["files"] = len(found.files)
    try:
        if resources.order_query is not None:
            take_query(resources, run, resources.order_query, result)
    except ConfigurationError:
        result.complete = False
        raise  # a retry cannot help; the files are taken already
    except FeedAmpError as error:
        result.record_failure("inbox_sql", error)
    finally:
        if not run.dry_run:
            record_run(resources, run, result, started_at)
    return result
