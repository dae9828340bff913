#!/bin/sh
# msgspec rounds the last moment of a day, as .NET writes it, into the next day.
#
# One would expect: of a time with more than six digits of a second, the rest is cut off, as `datetime.fromisoformat`,
# pydantic, pendulum and Polars do, so that no time becomes later than it was, and a day stays the day.
# What happens: the seventh digit is rounded. 2026-01-31T23:59:59.9999999Z, which is how .NET, SQL Server's datetime2(7) and
# APIs built on them write the end of a day, is decoded as midnight of February 1. As a `time`, 23:59:59.9999999 is 00:00.
# For a pipeline: a period up to the end of January counts as one that ends in February, a report of its last day is taken
# for the next one's, and a filter by `time <= end` is true for nothing but midnight. Decode such fields as text and cut
# them to six digits, or compare with the start of the next day, exclusive.
# Seen with msgspec 0.22.0, pydantic 2.14.4 and pendulum 3.3.0.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install msgspec==0.22.0 pydantic==2.14.4 pendulum==3.3.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from datetime import datetime, time

import msgspec
import pendulum
import pydantic

END = "2026-01-31T23:59:59.9999999Z"
decoded = {
    "msgspec.json.decode": msgspec.json.decode(f'"{END}"', type=datetime),
    "msgspec.convert": msgspec.convert(END, datetime),
    "datetime.fromisoformat": datetime.fromisoformat(END),
    "pydantic": pydantic.TypeAdapter(datetime).validate_json(f'"{END}"'),
    "pendulum": pendulum.parse(END),
}
of_day = msgspec.json.decode('"23:59:59.9999999"', type=time)
print("msgspec", msgspec.__version__)
for name, moment in decoded.items():
    print(f"{name}: {moment}")
print("as a time:", of_day)
assert msgspec.__version__ == "0.22.0"
days = {name: (moment.month, moment.day) for name, moment in decoded.items()}
assert {days.pop(name) for name in ("msgspec.json.decode", "msgspec.convert")} == {(2, 1)}, "the behavior has changed"
assert of_day == time(0), "the behavior has changed"
assert set(days.values()) == {(1, 31)}
PYTHON
