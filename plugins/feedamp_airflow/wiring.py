"""Builds `Resources` from options and connections; the only place that does."""

import contextlib
import functools
import logging
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, unquote_plus, urlsplit

from airflow.sdk.log import mask_secret
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError

from feedamp.api.account import FeedAmpAccount, check_origin
from feedamp.api.token_journal import TokenJournal
from feedamp.errors import ConfigurationError, FeedAmpError
from feedamp.lake.privacy import Privacy
from feedamp.lake.store import Lake
from feedamp.resources import Resources
from feedamp.rules.failure_summary import counted
from feedamp.state import HEAD, State, data_key, erasures, grants, inbox_files, sellers, step_runs
from feedamp.state.database import BY_A_NEWER_VERSION, STORE_AWAY_S
from feedamp.state.token_cipher import TokenCipher, key_beside, key_file_of, pieces_of, read_key_file
from feedamp.state.transaction_locks import LOCK_WAIT_S
from feedamp.storage import shown_url
from feedamp.warehouse import Warehouse
from feedamp.warehouse.duckdb import DuckDbWarehouse
from feedamp_airflow.account import libpq_options, read_account, read_postgres
from feedamp_airflow.config import Options, default_state_file, read_options
from feedamp_airflow.connections import LOOK_UP_PATIENCE_S, connection_by_id, connection_for, is_task
from feedamp_airflow.sql_inbox import SqlInbox
from feedamp_airflow.storages import needs_extra, open_store

log = logging.getLogger(__name__)
NEW_START = "feedamp init --state"  # recorded as a run, so that the new state does not count as lost
# Fields of a URL's query that are kept out of logs: of libpq, and of what object stores take.
_SECRET_FIELD = re.compile("passw|secret|token|sig|(?<!ssl)key", re.IGNORECASE)


class NoStateError(ConfigurationError):
    """There is no state yet; nothing was made."""


def make_resources(
    *,
    checks_key: bool = True,
    stores_grants: bool = False,
    options: Options | None = None,
    lock_wait_s: float = LOCK_WAIT_S,
    records_origins: bool = True,
    takes_orders: bool = False,
) -> Resources:
    """Everything a step needs, from the options and connections of this process.

    The default inbox is made with a new state, and with `takes_orders` until a file was read from it. Later, a folder that
    is away, as when it is not mounted, must not look like one without orders.

    `checks_key=False` accepts a key that decrypts none of the stored tokens; with `stores_grants`, commands can then store
    new ones. `lock_wait_s` is of the state, as in `State`. `options` are already read, and may have faults. Without
    `records_origins`, others record that and the use of the key: a form would wait twice for who has locked the state.

    Raises:
        ConfigurationError: an option, a connection or the encryption key cannot be used; or the state is new, although
            there is a lake or a key file of an earlier one.
        StoreAwayError: in a task, the server of the state did not answer for too long.
    """
    options = options or read_options()
    state_url = _state_url(options)
    journal_url = _journal_url(options, state_url)
    for address in (state_url, options.settings.inbox_url, options.lake_url, journal_url):
        _mask_password(address)
    lake = lake_of(options)
    if options.encryption_key:
        _mask_keys(options.encryption_key)
        TokenCipher(options.encryption_key)  # before the state is opened, which may create it
    elif not state_url.startswith("sqlite"):
        raise ConfigurationError(
            "[feedamp] encryption_key is required when the state is not a SQLite file; make one with "
            "`python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'`."
        )
    state = open_state(options, url=state_url, upgrade=True, lock_wait_s=lock_wait_s)
    try:
        is_new = refuse_unused_state(state, options)
        cipher = data_key.open_cipher(
            state,
            options.encryption_key or _key_beside(state, lake),
            checks_key=checks_key,
            stores_grants=stores_grants,
            notes_use=records_origins or stores_grants,
            read_again=None if options.encryption_key else functools.partial(_read_keys, state),
        )
        if records_origins:
            record_origins(state)
        if journal_url == _journal_in(options):
            lake.make_root()
        if is_new or (takes_orders and options.has_default_inbox and _took_no_file(state)):
            _make_default_inbox(options)
        query_on = options.inbox_sql_conn_id
        return Resources(
            state=state,
            cipher=cipher,
            lake=lake,
            warehouse=make_warehouse(options, lock_wait_s=options.duckdb_lock_wait_s),
            settings=options.settings,
            privacy=Privacy(_pseudonym_key(cipher) if options.masks_personal_fields else None),
            connection=functools.cache(_account),
            journal=TokenJournal(open_store("journal_url", journal_url), cipher),
            default_conn_id=options.conn_id,
            order_query=SqlInbox(query_on, options.inbox_sql, connection_by_id)
            if options.inbox_sql and query_on
            else None,
            on_secret=mask_secret,
            open_inbox=functools.cache(functools.partial(open_store, "inbox_url")),
        )
    except BaseException:
        state.close()  # the caller gets no object to close
        raise


def _pseudonym_key(cipher: TokenCipher) -> Callable[[], bytes]:
    """Asked for late: a command that writes nothing to the lake works without the data key."""
    return functools.cache(functools.partial(cipher.derived_key, "pseudonym"))


def _account(conn_id: str, *, patience_s: float = LOOK_UP_PATIENCE_S) -> FeedAmpAccount:
    found = read_account(connection_by_id(conn_id, patience_s=patience_s))
    mask_secret(found.credentials.client_secret)
    return found


def record_origins(state: State) -> dict[str, tuple[str, int]]:
    """Records the server of their connection for grants that a version before origins stored. Safe to repeat.

    Not left to the first use: until then, a changed Base URL would go unnoticed. A connection that cannot be read, or whose
    other grants were issued by another server, is left for its first use. Returns by connection id the origin, and how
    many grants got it.
    """
    with state.read() as connection:
        unknown = grants.without_origin(connection)
    recorded = {}
    for conn_id, count in unknown.items():
        try:
            endpoint = _account(conn_id, patience_s=0.0).endpoint  # most steps need no connection
            check_origin(state, conn_id, endpoint)
        except Exception as error:  # noqa: BLE001 - raised again by the step that uses the connection
            log.warning(
                "Which server issued %s of connection %s cannot be recorded yet; do not change its Base URL before: %s",
                counted(count, "grant"),
                conn_id,
                error if isinstance(error, FeedAmpError) else type(error).__name__,
            )
        else:
            recorded[conn_id] = (endpoint.origin, count)
    return recorded


def make_warehouse(options: Options, *, lock_wait_s: float, away_s: float = STORE_AWAY_S) -> Warehouse:
    """The warehouse of `warehouse_conn_id`, or the DuckDB file, not opened yet; ConfigurationError without its driver."""
    if options.warehouse_conn_id:
        found = connection_for("warehouse_conn_id", options.warehouse_conn_id)
        with needs_extra("warehouse_conn_id", "postgres"):
            from feedamp.warehouse.postgres import PostgresWarehouse
        address = read_postgres(found)
        mask_secret(address.password)
        return PostgresWarehouse(address, lock_wait_s=lock_wait_s, away_s=away_s)
    return DuckDbWarehouse(
        options.duckdb_path,
        memory_limit=options.duckdb_memory_limit,
        storage_version=options.duckdb_storage_version,
        file_mode=options.file_mode,
        lock_wait_s=lock_wait_s,
    )


def open_state(
    options: Options,
    *,
    url: str | None = None,
    upgrade: bool = False,
    is_new_start: bool = False,
    lock_wait_s: float = LOCK_WAIT_S,
) -> State:
    """The state database alone, by default without a schema upgrade; `url` is known already if it is given.

    With `is_new_start`, a new state is created although a lake or a key file of an earlier one exists.

    Raises:
        ConfigurationError: an option or a connection cannot be used; or the state is new, although one of the two exists.
    """
    url = url or _state_url(options)
    found = make_url(url)

    def refuse_new() -> None:
        if is_new_start:
            return
        key_file = key_file_of(found.database or "")
        if found.get_backend_name() == "sqlite" and key_file.exists():
            raise _lost_state(found, f"its key file {key_file} exists")
        _refuse_beside_data(found, options)

    if upgrade and _is_missing_file(found):
        refuse_new()  # before there is a file
    # A command should say at once that the server does not answer; a task should outlive its restart.
    patience_s = STORE_AWAY_S if is_task() else 0.0
    with needs_extra("state_url", "postgres"):
        return State(
            url,
            upgrade=upgrade,
            opening_patience_s=patience_s,
            before_new=refuse_new,
            lock_wait_s=lock_wait_s,
        )


def start_state() -> tuple[State, bool, bool]:
    """The state of a new start, with its key; whether nothing was done with it before; whether its data key was lost.

    With a new state the default inbox is made. Safe to repeat: a data key is made again only where it is lost.

    Raises a ConfigurationError if the state holds grants, and the key file that decrypts them is missing.
    """
    options = read_options()
    state = open_state(options, is_new_start=True)
    try:
        state.upgrade()
        with state.begin() as connection:
            is_new = not _is_used(connection)
            step_runs.first_seen(connection, NEW_START, now=state.now())
        if is_new:
            _make_default_inbox(options)
        keys = options.encryption_key
        if state.is_sqlite and not keys:
            keys = _key_beside(state, None)
        had_lost_data_key = keys is not None and data_key.start_over(state, keys)
    except BaseException:
        state.close()
        raise
    return state, is_new, had_lost_data_key


def existing_state(options: Options | None = None, *, lock_wait_s: float = LOCK_WAIT_S) -> State:
    """The state as it is, for a reader: nothing is made or upgraded.

    Raises:
        NoStateError: there is none, or it is empty.
        ConfigurationError: an option or a connection cannot be used, the state is of another version, or it is new although
            there is a lake of an earlier one.
    """
    options = options or read_options()
    url = _state_url(options)
    if _is_missing_file(make_url(url)):
        raise NoStateError(f"There is no state {make_url(url).database} yet: nothing has run so far.")
    state = open_state(options, url=url, lock_wait_s=lock_wait_s)
    try:
        revision = state.current_revision()
        if revision == HEAD:  # a new one beside a lake took the place of one that was lost
            refuse_unused_state(state, options)
            return state
    except BaseException:
        state.close()
        raise
    state.close()
    if revision is None:
        raise NoStateError("The state database is empty: nothing has run yet.")
    if revision > HEAD:
        raise ConfigurationError(BY_A_NEWER_VERSION)
    raise ConfigurationError(
        "The state database is of an earlier version of this package: the next run of a FeedAMP DAG, or `feedamp db "
        "upgrade`, brings it up to date."
    )


def lake_of(options: Options) -> Lake:
    """The lake of these options, not read yet."""
    return Lake(open_store("lake_url", options.lake_url), file_mode=options.file_mode)


def lake_as_erased(options: Options) -> Lake:
    """The lake of these options for a reader without `Resources`: it leaves out what the state says was erased so far.

    Raises a ConfigurationError if the lake has data and no state says so, the state is of another version, or the key that
    its marks need is missing.
    """
    lake = lake_of(options)
    try:
        state = existing_state(options)
    except NoStateError:
        _refuse_beside_data(make_url(_state_url(options)), options)
        return lake
    with contextlib.closing(state), state.read() as connection:
        if not erasures.is_any(connection):
            return lake
        try:
            keys = options.encryption_key or _read_keys(state)
        except FileNotFoundError as error:
            raise ConfigurationError(
                "The key that says what was erased from the lake is missing: set [feedamp] encryption_key here as in the tasks, "
                "or restore the key file beside the state."
            ) from error
        cipher = data_key.open_cipher(state, keys, checks_key=False, notes_use=False)
        erased = erasures.load(connection, cipher)
    lake.erased = lambda: erased
    return lake


def _is_missing_file(url: URL) -> bool:
    return url.get_backend_name() == "sqlite" and not Path(url.database or "").exists()


def refuse_unused_state(state: State, options: Options) -> bool:
    """Whether nothing was done with the state yet; raises a ConfigurationError if so, although the lake has data."""
    with state.read() as connection:
        is_used = _is_used(connection)
    if not is_used:
        _refuse_beside_data(state.url, options)
    return not is_used


def _took_no_file(state: State) -> bool:
    with state.read() as connection:
        return not inbox_files.is_any(connection)


def _make_default_inbox(options: Options) -> None:
    if options.has_default_inbox:
        with contextlib.suppress(OSError):  # only tasks of `place` and commands need it
            Path(options.settings.inbox_url).mkdir(parents=True, exist_ok=True)


def _refuse_beside_data(url: URL, options: Options) -> None:
    if not (lake := lake_of(options)).is_empty():
        raise _lost_state(url, f"the lake {lake.storage.url} has data")


def _is_used(connection: Connection) -> bool:
    return step_runs.is_any(connection) or sellers.is_any(connection)


def _lost_state(url: URL, what_is_left: str) -> ConfigurationError:
    """The error of a state that is empty although there was one: work would begin again, and without the grants."""
    return ConfigurationError(
        f"The state {shown_url(url.render_as_string())} is empty, although {what_is_left}. Correct [feedamp] state_url or "
        "state_conn_id, or restore the state from a backup. To deliberately start empty, run `feedamp init --state`."
    )


def _key_beside(state: State, lake: Lake | None) -> str:
    """The key of a SQLite state; created only where nothing was encrypted or masked with another one.

    `lake` is None for a new start on purpose.
    """
    file = state.url.database or ""
    if not key_file_of(file).exists():
        with state.read() as connection:
            has_grants = grants.is_any(connection)
        if has_grants:
            raise ConfigurationError(
                f"The key file {key_file_of(file)} is missing, or this process lacks [feedamp] encryption_key, which the other "
                "processes have; the stored tokens cannot be decrypted without it: set the option here as well, or restore the "
                "file from a backup. If the key is lost, set [feedamp] encryption_key to a new key; every seller must "
                "then authorize again."
            )
        if lake is not None and not lake.is_empty():
            raise ConfigurationError(
                f"The key file {key_file_of(file)} is missing, although the lake {lake.storage.url} has data: restore the "
                "key file from a backup. To deliberately start empty, run `feedamp init --state`."
            )
    keys = key_beside(file)
    _mask_keys(keys)
    try:
        TokenCipher(keys)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"The key file {key_file_of(file)} is damaged; restore it from a backup. Its {error}"
        ) from error
    return keys


def _read_keys(state: State) -> str:
    """The keys in the key file as they are now; in a process that has read them before."""
    keys = read_key_file(state.url.database or "")
    _mask_keys(keys)
    return keys


def _mask_keys(keys: str) -> None:
    for key in pieces_of(keys):
        mask_secret(key)


def _journal_url(options: Options, state_url: str) -> str:
    """By default beside a SQLite state, which only one machine uses; otherwise in the lake, which all machines reach."""
    file = make_url(state_url).database
    if options.journal_url or not state_url.startswith("sqlite") or not file:
        return options.journal_url or _journal_in(options)
    return str(Path(file).with_name("journal"))


def _journal_in(options: Options) -> str:
    """The folder of the journal in the lake."""
    return f"{options.lake_url.rstrip('/')}/_journal"


def _state_url(options: Options) -> str:
    if options.state_url and options.state_conn_id:
        raise ConfigurationError("[feedamp] state_url and state_conn_id are both set; set only one.")
    if options.state_conn_id:
        connection = connection_for("state_conn_id", options.state_conn_id)
        url = URL.create(
            "postgresql+psycopg",
            username=connection.login,
            password=connection.password,
            host=connection.host,
            port=connection.port,
            database=connection.schema,
            query=libpq_options(connection),
        )
        return url.render_as_string(hide_password=False)
    url_text = options.state_url or f"sqlite:///{default_state_file()}"
    try:
        url = make_url(url_text)
        can_be_used = url.get_backend_name() in ("sqlite", "postgresql") and not url.get_dialect().is_async
    except ArgumentError:
        raise ConfigurationError(
            "[feedamp] state_url is not a database URL, as sqlite:////var/lib/feedamp/state.db is."
        ) from None  # SQLAlchemy's message may hold the password
    if not can_be_used:
        raise ConfigurationError(
            f"[feedamp] state_url must begin with sqlite:/// or postgresql+psycopg://, not with {url.drivername}://."
        )
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_absolute():
        raise ConfigurationError(
            "[feedamp] state_url must name an absolute path, as in sqlite:////var/lib/feedamp/state.db."
        )
    return url_text


def _mask_password(address: str) -> None:
    """Masks the password of a URL in logs, also one in its query, percent-encoded and decoded."""
    given = urlsplit(address)
    fields = (field.partition("=") for field in given.query.split("&"))
    in_query = [value for name, _, value in fields if _SECRET_FIELD.search(name)]
    for password in filter(None, [given.password, *in_query]):
        mask_secret(password)
        mask_secret(unquote_plus(password))
        mask_secret(unquote(password))
