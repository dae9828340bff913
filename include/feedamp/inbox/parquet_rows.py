"""Converts a Parquet file to JSON Lines. It is run as a program, in a process whose memory and time are limited.

pyarrow decodes a few bytes to gigabytes if the file says so, and no option bounds it. This file imports nothing of the
package, so that the process starts quickly.
"""

import resource
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

ENCODER = msgspec.json.Encoder(decimal_format="number", enc_hook=str)
BATCH_BYTES = 16 << 20
ROWS_DECODED_AT_ONCE = 1_000
LARGE_ROWS = 20  # one value of a dictionary may make each row large: a few bytes would be decoded for minutes
# In a schema, times that pyarrow converts by pandas alone. For any time with a zone it imports pandas, which takes longer than
# all the rest.
NANOSECONDS = "[ns"
# Columns that `DataFrame.to_parquet` and `to_csv` add unasked; the second is named so once the CSV was read again.
PANDAS_INDEX = ("__index_level_", "Unnamed: 0")
# What the program prints, a JSON list on each line that begins with one of these words.
# NAMES: the number of rows that the footer declares, the names of the columns. ROW: the row, the fields that cannot be
# read. DAMAGED: why the file cannot be read further. END: all rows were printed.
NAMES, ROW, LARGE, DAMAGED, END = "names", "row", "large", "damaged", "end"


def plain(value: Any) -> Any:
    """A cell as a JSON decoder would return it.

    Null members are left out, because every row of a Parquet struct has all members; NaN, which pandas writes for
    nothing, counts as null. Dates and times become text, floats exact decimals, bytes UTF-8 text.

    Raises:
        UnicodeDecodeError: bytes are not UTF-8.
        OverflowError: a moment is beyond the calendar.
    """
    if isinstance(value, Mapping):
        members = ((name, plain(member)) for name, member in value.items())
        return {name: member for name, member in members if member is not None}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float | Decimal):
        number = Decimal(repr(value)) if isinstance(value, float) else value
        return (None if number.is_nan() else str(number)) if not number.is_finite() else number
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode()
    if isinstance(value, datetime):
        return value.isoformat() if value.tzinfo is None else f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(value, date):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value


def _readable(cell: Any, path: str, faults: list[str]) -> Any:
    """The cell of pyarrow as far as it can be read; adds the paths of what cannot to `faults`."""
    with suppress(Exception):
        return plain(cell.as_py())
    if hasattr(cell, "items"):  # a struct
        return {name: _readable(member, f"{path}.{name}", faults) for name, member in cell.items()}
    if hasattr(cell, "values"):  # a list
        return [_readable(item, f"{path}[{at}]", faults) for at, item in enumerate(cell.values)]
    faults.append(path)
    return None


def _rows(batch: Any) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Each row with its faults; the cells are converted one by one if the whole batch or row cannot be."""
    whole = None
    with suppress(Exception):
        whole = batch.to_pylist()
    for at in range(batch.num_rows):
        faults: list[str] = []
        try:
            row = plain(whole[at] if whole is not None else batch.slice(at, 1).to_pylist()[0])
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - whatever a value raises costs its cell alone
            columns = zip(batch.schema.names, batch.columns, strict=True)
            row = {name: _readable(column[at], name, faults) for name, column in columns}
        yield row, faults


def _print(*fields: Any) -> None:
    sys.stdout.buffer.write(ENCODER.encode(fields) + b"\n")


def _address_space() -> int:
    """The bytes of address space that this process has; 0 where the system does not say."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
    return 0


def main(max_row_bytes: int, max_memory: int, max_cpu_s: int) -> None:
    """Prints the rows of the file that is the standard input."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    # The libraries reserve address space by the number of processors, so only what is added is limited.
    limit = _address_space() + max_memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (max_cpu_s, max_cpu_s))
    try:
        file = pq.ParquetFile(sys.stdin.buffer, page_checksum_verification=True)
        if NANOSECONDS not in str(file.schema_arrow):
            sys.modules["pandas"] = None  # type: ignore[assignment] # as if it were not installed
        _print(NAMES, file.metadata.num_rows, file.schema_arrow.names)
        large = 0
        groups = range(file.metadata.num_row_groups)
        size = sum(file.metadata.row_group(group).total_byte_size for group in groups)
        at_once = BATCH_BYTES * file.metadata.num_rows // max(1, size)
        for batch in file.iter_batches(max(1, min(ROWS_DECODED_AT_ONCE, at_once)), use_threads=False):
            for found, faults in _rows(batch):
                row = {name: cell for name, cell in found.items() if not name.startswith(PANDAS_INDEX)}
                line = ENCODER.encode((ROW, row, faults))
                if len(line) <= max_row_bytes:
                    sys.stdout.buffer.write(line + b"\n")
                    continue
                _print(LARGE)
                large += 1
                if large == LARGE_ROWS:
                    _print(DAMAGED, "too_large", f"{large} of its rows are larger than an order may be")
                    return
        _print(END)
    except BrokenPipeError:
        sys.stderr.close()
    except MemoryError:
        _print(
            DAMAGED, "too_large", "it takes more memory to decode than the inbox allows: write smaller files"
        )
    except Exception as error:  # noqa: BLE001 - any error of the decoder means that this file is damaged
        _print(DAMAGED, "unreadable", f"it is damaged or not Parquet ({type(error).__name__})")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
