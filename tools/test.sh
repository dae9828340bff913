#!/bin/sh
# All tests: first the steps beside most of the others, for they take as long; then those with a real Airflow, which mostly
# wait, beside the rest.
# With arguments, pytest with those. Called by the Makefile.
set -u
cd "$(dirname "$0")/.."
python=.venv/bin/python
# Container images like to set it; then each process would compile all of Airflow again, for two seconds.
unset PYTHONDONTWRITEBYTECODE

[ "$#" -eq 0 ] || exec "$python" -m pytest "$@"

# In memory, if there is room and programs may be started there: no commit waits for a disk then (Linux).
made=$(mktemp -d)
room_kb=$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print $4 }')
if [ "${room_kb:-0}" -gt 4194304 ] && faster=$(mktemp -d /dev/shm/feedamp-tests-XXXXXX); then
    printf '#!/bin/sh\n' >"$faster/try" && chmod +x "$faster/try"
    if "$faster/try" 2>/dev/null; then rmdir "$made"; made=$faster; else rm -rf "$faster"; fi
fi
export TMPDIR="$made"
log=$made/beside.log
beside=
trap 'rm -rf "$made"' EXIT
trap 'kill $beside 2>/dev/null' INT TERM
LATER="tests/object_store tests/engines tests/steps/test_crashes.py
tests/postgres/test_a_minute_without_postgres.py"
not_yet=$(printf -- '--ignore=%s ' $LATER)

"$python" -m pytest tests/steps --ignore=tests/steps/test_soak.py $not_yet -o cache_dir=.pytest_cache/beside \
    >"$log" 2>&1 &
beside=$!
"$python" -m pytest tests/core tests/postgres tests/airflow tests/steps/test_soak.py $not_yet
others=$?
wait "$beside"
of_steps=$?
cat "$log"

"$python" -m pytest tests/contract tests/packaging $LATER -o cache_dir=.pytest_cache/beside >"$log" 2>&1 &
beside=$!
"$python" -m pytest tests/e2e
of_e2e=$?
wait "$beside"
of_rest=$?
cat "$log"
[ "$others$of_steps$of_e2e$of_rest" = 0000 ] && exit
trap - EXIT
echo "What the tests left is in $made." >&2
exit 1
