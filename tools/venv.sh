#!/bin/sh
# Makes .venv and installs requirements.lock into it, with the first Python 3.11-3.13 that can make environments.
# Called by the Makefile; PYTHON=/path/to/python chooses another one.
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*"; }
stop() { say "make: $*" >&2; exit 1; }

python=
without_venv=
others=
for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    case $version in
        3.11 | 3.12 | 3.13) ;;
        *) others="${others:+$others, }$candidate, which is $version"; continue ;;
    esac
    # Not the interpreter of an active .venv, which is about to go, but the one behind it.
    if python=$("$candidate" -c 'import ensurepip, venv, sys; print(sys._base_executable)' 2>/dev/null); then
        break
    fi
    without_venv=${without_venv:-python$version}
done

if [ -z "$python" ] && [ -n "$without_venv" ]; then
    stop "$without_venv cannot make virtual environments here. On Debian and Ubuntu:" \
        "apt-get install $without_venv-venv (or python3-venv), then make again."
elif [ -z "$python" ]; then
    stop "needs Python 3.11, 3.12 or 3.13, and found ${others:-none}. Install one, or say which:" \
        "make PYTHON=/path/to/python3.12"
fi

say "Making .venv with $("$python" -V) and the packages of requirements.lock ..."
rm -rf .venv
"$python" -m venv .venv || stop "could not make .venv; see above."

# uv, itself checked against its hash, installs the rest in seconds; pip needs a minute, but has a configuration of
# indexes and certificates on machines where uv has none.
pip=".venv/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes --no-deps"
uv=".venv/bin/uv --quiet --system-certs pip install --python .venv/bin/python --require-hashes --no-deps"
sed -n '/^uv==/,/[^\\]$/p' requirements.lock > .venv/uv.txt
$pip -r .venv/uv.txt || stop "pip could not install uv: is a package index within reach? See above."
if ! $uv -r requirements.lock; then
    say "uv could not install the packages; trying pip, which takes a minute or two ..."
    $pip -r requirements.lock || stop "the packages of requirements.lock could not be installed; see above."
fi
pwd > .venv/made-in
