"""`feedamp init`: copies the DAG files into a DAG folder, which needs no Airflow, or starts a new state."""

import argparse
from pathlib import Path

from feedamp.errors import ConfigurationError
from feedamp_airflow.cli.output import Output, replaced_file

PACKAGE = Path(__file__).parents[1]


def dag_files() -> list[Path]:
    """The DAG files of this version: from the package if it was installed as a wheel, else from the repository."""
    for folder in (PACKAGE / "dags", PACKAGE.parents[1] / "dags"):
        found = sorted(folder.glob("feedamp_*.py"))
        if found:
            return found
    raise ConfigurationError("The DAG files are not where they should be: install the package again.")


def start(given: argparse.Namespace, out: Output) -> int:
    """Does what the arguments say: copies the DAG files, or creates a new state."""
    if given.state == (given.folder is not None):
        raise ConfigurationError("Give a DAG folder or --state.")
    return _start_state(out) if given.state else copy_dags(given, out)


def _start_state(out: Output) -> int:
    """Creates the state database and its key on purpose, whatever an earlier state has left behind."""
    from feedamp_airflow.wiring import start_state

    state, is_new = start_state()
    where = state.url.render_as_string()
    state.close()
    if is_new:
        out.say(f"{where}: starts empty; register the sellers with `feedamp sellers import`")
    else:
        out.say(f"{where}: already exists")
    return 0


def copy_dags(given: argparse.Namespace, out: Output) -> int:
    """Copies missing files and prints what it did. Safe to repeat."""
    folder = Path(given.folder)
    sources = dag_files()
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"{folder} is not a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    left_alone = 0
    for source in sources:
        target = folder / source.name
        content = source.read_bytes()
        if not target.exists():
            _write(target, content)
            out.say(f"{target}: written")
        elif target.read_bytes() == content:
            out.say(f"{target}: already exists")
        elif given.force:
            _write(target, content)
            out.say(f"{target}: overwritten")
        else:
            out.say(f"{target}: differs from this version's, left alone; --force overwrites it")
            left_alone += 1
    return 1 if left_alone else 0


def _write(target: Path, content: bytes) -> None:
    with replaced_file(target) as file:  # since Airflow may be reading the folder
        file.write(content)
