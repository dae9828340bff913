#!/bin/sh
# Airflow's secrets masker compiles one pattern of all known secrets again for each secret that it is told.
#
# One would expect: `mask_secret` of one more value costs about the same each time, and many values given as one list are
# taken in one step.
# What happens: each new value joins an alternation of all values so far, which is compiled again, also between the values
# of one list. The whole cost grows with the square of their number: 300 tokens take many times what 100 take.
# For a pipeline: a task that holds a token for each of some thousand accounts and masks them all, as the docs advise for
# whatever is fetched at run time, spends its time in `re.compile`, and its supervisor, which is told of each, does the
# same. Split the accounts over tasks, and mask only what a log line could hold.
# Seen with apache-airflow-task-sdk 1.3.2.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install apache-airflow-core==3.3.2 apache-airflow-task-sdk==1.3.2
cd "$folder"
AIRFLOW_HOME="$folder/home" "$folder/venv/bin/python" - <<'PYTHON'
import re
import secrets
from importlib.metadata import version

from airflow.sdk.log import mask_secret

compiled = 0
real_compile = re.compile


def counting(pattern, flags=0):
    global compiled
    if isinstance(pattern, str) and pattern.count("|") and "token" in pattern:
        compiled += len(pattern)
    return real_compile(pattern, flags)


def characters(count):
    """How many characters of patterns are compiled for one list of `count` tokens of 43 characters."""
    global compiled
    compiled = 0
    mask_secret(["token" + secrets.token_hex(19) for _ in range(count)])
    return compiled


re.compile = counting
first, more = characters(100), characters(200)
print("apache-airflow-task-sdk", version("apache-airflow-task-sdk"))
print(f"100 tokens in one list: {first:,} characters compiled; 200 more: {more:,}")
assert version("apache-airflow-task-sdk") == "1.3.2"
assert first > 20 * 100 * 43, "the behavior has changed"
assert more > 6 * first, "the behavior has changed"
PYTHON
