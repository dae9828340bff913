#!/bin/sh
# Airflow's SqlToS3Operator leaves out the rows without a group, and of two columns names the objects by the first alone.
#
# One would expect: `groupby_kwargs` says how the rows of the query are split over objects; together they hold all rows.
# What happens: the frame goes through pandas' `groupby`, which drops the rows whose column is NULL: no object has them. With
# `df_type="polars"`, they are there. Split by two columns, `{"by": ["seller", "day"]}`, each group is uploaded, but the name
# of its object holds the seller only: with `replace=True`, which a task that is run again needs, each day of a seller
# overwrites the one before, and the last day is left. The task is green, the log says "Uploading data to S3".
# For a pipeline: orders whose seller is not known yet, and all days but one, are missing from what is read as the whole
# table. Pass `"dropna": False`, make one column of the two in the query, and count rows on both sides.
# Seen with apache-airflow-providers-amazon 9.39.0, Airflow 3.3.2 and pandas 3.1.1 against moto 5.2.5.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install \
    apache-airflow-core==3.3.2 apache-airflow-task-sdk==1.3.2 apache-airflow-providers-amazon==9.39.0 \
    apache-airflow-providers-sqlite==4.3.4 pandas==3.1.1 polars==2.1.0 pyarrow==26.0.1 \
    "moto[s3]==5.2.5" flask==3.1.3 flask-cors==6.0.5
cd "$folder"
AIRFLOW_HOME="$folder/home" AIRFLOW__LOGGING__LOGGING_LEVEL=ERROR "$folder/venv/bin/python" - <<'PYTHON'
import json
import os
import sqlite3
from importlib.metadata import version
from pathlib import Path

import boto3
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

ROWS = [("M-1", "S1", "05-01"), ("M-2", "S1", "05-02"), ("M-3", "S2", "05-01"), ("M-4", None, "05-01")]
with sqlite3.connect("shop.db") as database:
    database.execute("CREATE TABLE orders (number text, seller text, day text)")
    database.executemany("INSERT INTO orders VALUES (?, ?, ?)", ROWS)
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
address = "http://{}:{}".format(*server.get_host_and_port())
os.environ["AIRFLOW_CONN_SHOP"] = json.dumps({"conn_type": "sqlite", "host": str(Path("shop.db").resolve())})
os.environ["AIRFLOW_CONN_AWS_DEFAULT"] = json.dumps({
    "conn_type": "aws", "login": "test", "password": "test",
    "extra": {"endpoint_url": address, "region_name": "us-east-1"},
})
from airflow.providers.amazon.aws.transfers.sql_to_s3 import SqlToS3Operator

s3 = boto3.client("s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
s3.create_bucket(Bucket="lake")


def objects(prefix, groupby, **options):
    """The orders in each object after a run of the task."""
    SqlToS3Operator(
        task_id=prefix, query="SELECT * FROM orders ORDER BY number", s3_bucket="lake", s3_key=f"{prefix}/orders.csv",
        sql_conn_id="shop", groupby_kwargs=groupby, replace=True, **options,
    ).execute({})
    found = {}
    for item in s3.list_objects_v2(Bucket="lake", Prefix=f"{prefix}/")["Contents"]:
        body = s3.get_object(Bucket="lake", Key=item["Key"])["Body"].read().decode()
        found[item["Key"].split("/")[1]] = [number for number, *_ in ROWS if number in body]
    return found


one = objects("one", {"by": "seller"})
two = objects("two", {"by": ["seller", "day"]})
kept = objects("kept", {"by": "seller", "dropna": False})
polars = objects("polars", {"by": "seller"}, df_type="polars")
print("apache-airflow-providers-amazon", version("apache-airflow-providers-amazon"))
print("by seller:", one)
print("by seller and day:", two)
print("by seller with dropna=False:", kept)
print("by seller as polars:", polars)
assert version("apache-airflow-providers-amazon") == "9.39.0"
assert one == {"orders_S1.csv": ["M-1", "M-2"], "orders_S2.csv": ["M-3"]}, "the behavior has changed"
assert two == {"orders_S1.csv": ["M-2"], "orders_S2.csv": ["M-3"]}, "the behavior has changed"
assert ["M-4"] in kept.values() and ["M-4"] in polars.values()
server.stop()
PYTHON
