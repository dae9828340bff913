"""Opens `inbox_url` and `lake_url`: a folder, or a bucket with the credentials of an Airflow connection.

A bucket URL names the connection as Airflow's ObjectStoragePath does: `s3://my_aws@bucket/prefix`.
"""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from feedamp.errors import ConfigurationError
from feedamp.storage import Storage, open_storage
from feedamp_airflow.connections import connection_for

EXTRAS = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "abfs": "azure",
    "abfss": "azure",
    "adl": "azure",
}
_FILE_SCHEME = re.compile("^(file|local):(//)?")  # what fsspec takes off before a path


def install_line(extra: str) -> str:
    """The command that installs an extra of this package."""
    return f'`pip install "airflow-provider-feedamp[{extra}]"`'


@contextmanager
def needs_extra(option: str, extra: str) -> Iterator[None]:
    """Turns the error of a package that is not installed into a ConfigurationError with the command that installs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"[feedamp] {option} needs {error.name}, which is not installed: {install_line(extra)}."
        ) from error


def open_store(option: str, url: str) -> Storage:
    """The store of an option. Without a connection in the URL, the store's package looks for credentials itself.

    Raises a ConfigurationError if there is no such connection, provider or kind of store, or if a folder is relative: tasks
    and commands run in different folders, and what one has written is not there for the other.
    """
    if not _is_the_same_everywhere(_FILE_SCHEME.sub("", url)):
        raise ConfigurationError(
            f"[feedamp] {option} must be an absolute path, also after file://, or a URL."
        )
    given = urlsplit(url)
    conn_id, at, host = given.netloc.rpartition("@")
    if "://" not in url or not at or host.endswith(".core.windows.net"):  # Azure's own container@account
        extra = EXTRAS.get(given.scheme)
        try:
            return open_storage(option, url)
        except ConfigurationError as error:
            if extra is None or not isinstance(error.__cause__, ImportError):
                raise
            raise ConfigurationError(
                f"[feedamp] {option}: {given.scheme}:// needs a package that is not installed: {install_line(extra)}."
            ) from error
    if not conn_id or ":" in conn_id:
        raise ConfigurationError(
            f"[feedamp] {option} must name a connection before the @, as in s3://my_aws@bucket/prefix; "
            "credentials belong in the connection."
        )
    connection_for(option, conn_id)  # a provider might continue without credentials
    return _with_connection(option, given.scheme, conn_id, urlunsplit(given._replace(netloc=host)))


def _is_the_same_everywhere(url: str) -> bool:
    if "://" in url:
        return True
    try:
        return Path(url).expanduser().is_absolute()
    except RuntimeError:  # there is no such user
        return False


def _with_connection(option: str, scheme: str, conn_id: str, url: str) -> Storage:
    # ObjectStoragePath.fs calls the same function, but it caches the first result for the process and continues
    # without credentials if the call fails.
    from airflow.sdk.io import get_fs, has_fs

    extra = EXTRAS.get(scheme)
    advice = install_line(extra) if extra else "install its Airflow provider"
    if not has_fs(scheme):
        raise ConfigurationError(
            f"[feedamp] {option}: no installed provider opens {scheme}:// with a connection; {advice}."
        )
    try:
        # In a separate thread: Amazon's provider starts an event loop, and one may already be running here.
        with ThreadPoolExecutor(1) as alone:
            fs = alone.submit(copy_context().run, get_fs, scheme, conn_id).result()
    except ImportError as error:
        raise ConfigurationError(f"[feedamp] {option}: {scheme}:// cannot be opened; {advice}.") from error
    except ValueError as error:
        raise ConfigurationError(
            f"[feedamp] {option}: connection {conn_id} cannot be used for {scheme}://."
        ) from error
    root = fs._strip_protocol(url)  # noqa: SLF001 - fsspec's own url_to_fs calls it
    shown = url.replace("://", f"://{conn_id}@", 1)
    return Storage(option, shown, fs, str(root))
