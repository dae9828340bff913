#!/bin/sh
# All tests: the steps beside everything else, for they take as long, and then those with a real Airflow by themselves.
# With arguments, pytest with those. Called by the Makefile.
set -u
cd "$(dirname "$0")/.."
python=.venv/bin/python

[ "$#" -eq 0 ] || exec "$python" -m pytest "$@"

steps=$(mktemp)
trap 'rm -f "$steps"' EXIT
"$python" -m pytest tests/steps --ignore=tests/steps/test_soak.py -o cache_dir=.pytest_cache/steps >"$steps" 2>&1 &
beside=$!
trap 'kill "$beside" 2>/dev/null' INT TERM
"$python" -m pytest tests/core tests/contract tests/postgres tests/object_store tests/airflow tests/packaging \
    tests/steps/test_soak.py
others=$?
wait "$beside"
of_steps=$?
cat "$steps"
"$python" -m pytest tests/e2e
of_e2e=$?
[ "$others$of_steps$of_e2e" = 000 ]
