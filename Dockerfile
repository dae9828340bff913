# Airflow with FeedAMP in it, for docker-compose.yaml. What the slim image lacks comes from requirements.lock,
# where a test holds the versions of Airflow here and there together.
FROM apache/airflow:slim-3.3.2-python3.12

# As constraints the pins hold by hash too, and the developer's tools among them stay out.
RUN --mount=type=bind,target=/src \
    uv pip install --no-cache --constraint /src/requirements.lock --requirement /src/pyproject.toml --extra postgres --extra s3 --extra cluster \
    && uv pip check

# The package itself brings the connection type, the pages and the command; Compose mounts newer code before it.
RUN --mount=type=bind,target=/src \
    cp -r /src /tmp/src \
    && uv build --no-cache --wheel --build-constraint /tmp/src/requirements.lock --out-dir /tmp/dist /tmp/src \
    && uv pip install --no-cache --no-deps /tmp/dist/*.whl \
    && rm -rf /tmp/src /tmp/dist

# Lake, DuckDB file, inbox and journal: a volume that is new takes its owner from here.
RUN umask 0002 && mkdir -p "${AIRFLOW_HOME}/feedamp/inbox" "${AIRFLOW_HOME}/journal" "${AIRFLOW_HOME}/include" "${AIRFLOW_HOME}/plugins"
