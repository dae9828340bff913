#!/bin/sh
# All tests, in groups: five run at a time on two cores, because those with a real Airflow or a server that stands still
# mostly wait; the longest first, and the two halves of core at last, a core for each. Groups that only compute give way to
# those that wait. The end says how long each took. With the name of a folder that has a group (`core`), only that; with
# other arguments, pytest with those. Called by the Makefile.
set -u
cd "$(dirname "$0")/.."
python=.venv/bin/python
# Container images like to set it; then each process would compile all of Airflow again, for two seconds.
unset PYTHONDONTWRITEBYTECODE

wanted=
[ "$#" -ne 1 ] || ! grep -Eq "^[a-z0-9_-]+ tests/$1( |\$)" tools/test.sh || wanted=$1
[ "$#" -eq 0 ] || [ "$wanted" ] || exec "$python" -m pytest "$@"

# In memory, if there is room and programs may be started there: no commit waits for a disk then (Linux).
made=$(mktemp -d)
room_kb=$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print $4 }')
if [ "${room_kb:-0}" -gt 4194304 ] && faster=$(mktemp -d /dev/shm/feedamp-tests-XXXXXX); then
    printf '#!/bin/sh\n' >"$faster/try" && chmod +x "$faster/try"
    if "$faster/try" 2>/dev/null; then rmdir "$made"; made=$faster; else rm -rf "$faster"; fi
fi
export TMPDIR="$made"
trap 'rm -rf "$made"' EXIT
trap 'kill $queue 2>/dev/null' INT TERM
queue=

# A line for each group: its name, then what pytest takes. Every folder of tests/ is in one (tests/packaging/test_rules.py).
cat >"$made/all" <<'GROUPS'
e2e tests/e2e
airflow tests/airflow
engines tests/engines
steps tests/steps --ignore-glob=*/test_steps_* --ignore=tests/steps/test_soak.py --ignore=tests/steps/test_crashes.py
named-steps tests/steps --ignore-glob=*/steps/test_[!s]* --ignore=tests/steps/test_soak.py
postgres tests/postgres
kills tests/steps/test_soak.py tests/steps/test_crashes.py
object_store tests/object_store
browser tests/browser
contract tests/contract
packaging tests/packaging
core-a-to-k tests/core --ignore-glob=*/core/test_[!a-k]*
core-l-to-z tests/core --ignore-glob=*/core/test_[a-k]*
GROUPS
grep -E " tests/${wanted:-[a-z0-9_]+}( |/|\$)" "$made/all" >"$made/groups"

# Each group writes to its own log, which is shown when it ends, and leaves a file when it fails.
cat >"$made/one" <<'ONE'
made=$1; python=$2; name=$3; shift 3
began=$(date +%s)
case $name in steps | named-steps | engines) give_way="nice -n 5" ;; *) give_way= ;; esac
$give_way "$python" -m pytest "$@" -o cache_dir=".pytest_cache/$name" >"$made/$name.log" 2>&1 || touch "$made/$name.failed"
printf '%6d s  %s\n' "$(($(date +%s) - began))" "$name" >>"$made/times"
cat "$made/$name.log"
ONE

run() {
    grep "$1" "$made/groups" | xargs -r -P "$2" -L 1 sh "$made/one" "$made" "$python" &
    queue=$!
    wait "$queue"
}
run '^[^c]\|^contract' 5
run '^core' 2

sort -rn "$made/times"
ls "$made"/*.failed >/dev/null 2>&1 || exit 0
trap - EXIT
echo "Failed: $(cd "$made" && echo *.failed). What the tests left is in $made." >&2
exit 1
