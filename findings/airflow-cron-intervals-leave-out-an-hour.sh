#!/bin/sh
# Airflow's data intervals leave out the better part of an hour on the day on which clocks go forward.
#
# One would expect: the data intervals of CronDataIntervalTimetable lie end to end, so that each moment is in one of them,
# whatever the clock does.
# What happens: with a cron expression that names hours, such as `*/15 0-6 * * *`, in a zone with summer time, the ticks of
# the hour that does not exist are moved behind it: 02:15 becomes 03:15, 02:30 becomes 03:30, and so on. The interval that
# ends at 03:00 is followed by one that starts at 03:45: 45 minutes are in no interval, on no day and in no catch-up. An
# expression whose hour is `*` lies end to end on that day, and so does each of them in autumn and in UTC.
# For a pipeline: the changes of those minutes, asked for from `data_interval_start` to `data_interval_end`, are never read,
# on one night a year, and each run of that night is green. Schedule in UTC, or keep a watermark of what was read.
# Seen with Airflow 3.3.2.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install apache-airflow-core==3.3.2 apache-airflow-task-sdk==1.3.2
cd "$folder"
AIRFLOW_HOME="$folder/home" "$folder/venv/bin/python" - <<'PYTHON'
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from itertools import pairwise

from airflow.timetables.base import TimeRestriction
from airflow.timetables.interval import CronDataIntervalTimetable
from pendulum import instance

SPRING, AUTUMN = datetime(2026, 3, 28, 12, tzinfo=UTC), datetime(2026, 10, 24, 12, tzinfo=UTC)


def left_out(cron, zone="Europe/Berlin", start=SPRING):
    """The times (UTC) between two intervals of one catch-up of 36 hours."""
    timetable, interval, intervals = CronDataIntervalTimetable(cron, timezone=zone), None, []
    bounds = TimeRestriction(earliest=instance(start), latest=instance(start + timedelta(hours=36)), catchup=True)
    while run := timetable.next_dagrun_info(last_automated_data_interval=interval, restriction=bounds):
        interval = run.data_interval
        intervals.append(interval)
    assert len(intervals) > 10
    return [
        f"{before.end:%H:%M} to {after.start:%H:%M}"
        for before, after in pairwise(intervals)
        if before.end != after.start
    ]


quarters, halves = left_out("*/15 0-6 * * *"), left_out("*/30 0-5 * * *")
new_york = left_out("*/15 0-6 * * *", "America/New_York", datetime(2026, 3, 7, 18, tzinfo=UTC))
all_day, autumn, utc = left_out("*/15 * * * *"), left_out("*/15 0-6 * * *", start=AUTUMN), left_out("*/15 0-6 * * *", "UTC")
print("Airflow", version("apache-airflow-core"))
print("left out of */15 0-6 in Berlin:", quarters, "; in New York:", new_york)
print("left out of */30 0-5 in Berlin:", halves)
print("left out of */15 in Berlin:", all_day, "; of */15 0-6 in autumn:", autumn, "; in UTC:", utc)
assert version("apache-airflow-core") == "3.3.2"
assert quarters == ["01:00 to 01:45"] and halves == ["01:00 to 01:30"], "the behavior has changed"
assert new_york == ["07:00 to 07:45"], "the behavior has changed"
assert all_day == autumn == utc == []
PYTHON
