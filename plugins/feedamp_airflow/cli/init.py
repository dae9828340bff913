"""`feedamp init`: how Airflow gets the DAG files, by a bundle or as copies, which need no Airflow; or starts a new state."""

import argparse
import json
from pathlib import Path

from feedamp.errors import ConfigurationError
from feedamp.storage import shown_url
from feedamp_airflow.cli.output import Output, replaced_file

PACKAGE = Path(__file__).parents[1]
BUNDLE = "feedamp_airflow.bundle.FeedAmpDagBundle"


def dag_files() -> list[Path]:
    """The DAG files of this version: from the package if it was installed as a wheel, else from the repository."""
    for folder in (PACKAGE / "dags", PACKAGE.parents[1] / "dags"):
        found = sorted(folder.glob("feedamp_*.py"))
        if found:
            return found
    raise ConfigurationError("The DAG files are not where they should be: install the package again.")


def start(given: argparse.Namespace, out: Output) -> int:
    """Does what the arguments say: prints the bundles with ours, copies the DAG files, or creates a new state."""
    if given.state and given.folder is not None:
        raise ConfigurationError("Give a DAG folder or --state, not both.")
    if given.state:
        return _start_state(out)
    return _print_bundles(out) if given.folder is None else copy_dags(given, out)


def _print_bundles(out: Output) -> int:
    """Prints the DAG bundles of this Airflow with ours, since Airflow lets no package add one. Changes nothing."""
    from airflow.configuration import conf

    bundles = conf.getjson("dag_processor", "dag_bundle_config_list") or []
    if not isinstance(bundles, list):
        raise ConfigurationError("dag_bundle_config_list of [dag_processor] is not a list.")
    if not any(isinstance(bundle, dict) and bundle.get("classpath") == BUNDLE for bundle in bundles):
        bundles.append({"name": "feedamp", "classpath": BUNDLE, "kwargs": {}})
    out.say(json.dumps(bundles))
    out.complain(
        "Give this value to every component of Airflow, as AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST or as "
        "dag_bundle_config_list in [dag_processor] of airflow.cfg."
    )
    return 0


def _start_state(out: Output) -> int:
    """Creates the state database and its key on purpose, whatever an earlier state has left behind."""
    from feedamp_airflow.wiring import start_state

    state, is_new, had_lost_data_key = start_state()
    where = shown_url(state.url.render_as_string())
    state.close()
    if is_new:
        out.say(f"{where}: starts empty; register the sellers with `feedamp sellers import`")
    else:
        out.say(f"{where}: already exists")
    if had_lost_data_key:
        out.say(
            "its data key was lost, and a new one was made: values hashed before are not recognized; repeat each erasure"
        )
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
