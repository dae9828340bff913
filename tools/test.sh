#!/bin/sh
# All tests: the steps beside everything else, for they take as long, and then those with a real Airflow by themselves.
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
steps=$made/steps.log
trap 'rm -rf "$made"' EXIT
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
[ "$others$of_steps$of_e2e" = 000 ] && exit
trap - EXIT
echo "What the tests left is in $made." >&2
exit 1
