"""Airflow finds everything, and finds the right copy, however the project was installed."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from feedamp import __version__

DAGS = [
    "feedamp_admin.py",
    "feedamp_extract_fulfillments.py",
    "feedamp_place_orders.py",
    "feedamp_process_fulfillments.py",
    "feedamp_reconcile_orders.py",
    "feedamp_refresh_tokens.py",
]


def test_the_wheel_holds_every_file_of_all_packages_and_the_dags(wheel, root):
    expected = {f"feedamp_airflow/dags/{name}" for name in DAGS} | {"feedamp_airflow/dbt/sources.yml"}
    for parent, package in ((root / "include", "."), (root / "plugins", "feedamp_airflow")):
        files = (p for p in (parent / package).rglob("*") if p.is_file() and "__pycache__" not in p.parts)
        expected |= {str(path.relative_to(parent)) for path in files}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == expected


def test_the_license_is_in_the_wheel_and_its_metadata(wheel, root):
    archive = zipfile.ZipFile(wheel)
    [license_file] = [name for name in archive.namelist() if name.endswith(".dist-info/licenses/LICENSE")]
    assert archive.read(license_file) == (root / "LICENSE").read_bytes()
    [metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    assert b"\nLicense-Expression: Apache-2.0\n" in archive.read(metadata)


def test_an_image_gets_every_file_that_the_wheel_is_built_from(root):
    kept = {line[1:] for line in (root / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    project = tomllib.loads((root / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["force-include"], *project["project"]["license-files"], project["project"]["readme"]}
    assert needed <= kept


def test_the_source_distribution_holds_what_the_readme_links_to(root, tmp_path):
    build = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path, root]
    subprocess.run(build, capture_output=True, check=True)
    [built] = tmp_path.glob("*.tar.gz")
    with tarfile.open(built) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    linked = set(re.findall(r"\]\((docs/[\w/.-]+)", (root / "README.md").read_text("utf-8")))
    assert {"LICENSE", "README.md", "docs/inbox.md"} <= held
    assert linked - held == set()


def test_airflow_sees_the_provider_its_options_and_its_plugin_once(installation):
    facts = installation.facts
    assert facts["installed"][0] == __version__
    assert facts["provider"]
    assert facts["hook_class"] == "feedamp_airflow.hook.FeedAmpHook"
    assert facts["page_size"] == "50"
    assert facts["plugins"] == ["feedamp"]
    assert facts["plugin_errors"] == {}
    assert facts["imported_by_stem"] == []


def test_airflow_looks_for_example_dags_without_a_traceback(installation):
    assert "airflow_provider_feedamp" not in "".join(installation.facts["of_examples"])


def test_the_code_comes_from_where_it_should(installation):
    assert Path(installation.facts["feedamp"]).is_relative_to(installation.code)
    assert Path(installation.facts["feedamp_airflow"]).is_relative_to(installation.code)


def test_the_command_line_is_there(installation):
    assert "sellers" in installation.run_feedamp("--help")


def test_init_copies_the_dag_files(installation, tmp_path):
    installation.run_feedamp("init", tmp_path / "dags")
    assert sorted(path.name for path in (tmp_path / "dags").glob("*.py")) == DAGS


def test_mounted_folders_alone_register_the_plugin_from_its_file(make_installation):
    facts = make_installation("mounts_alone", mount=True).look()
    assert facts["installed"] == []
    assert facts["plugins"] == ["feedamp"]
    assert facts["plugin_errors"] == {}
    assert facts["imported_by_stem"] == []


def test_feedamp_imports_without_airflow(wheel_installation):
    imported = wheel_installation.run_python("""
import importlib, pkgutil, sys
sys.modules["airflow"] = sys.modules["feedamp_airflow"] = None
import feedamp, feedamp_sandbox
for package in (feedamp, feedamp_sandbox):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):  # those run when imported
            importlib.import_module(module.name)
            print(module.name)
""")
    assert {"feedamp.steps.load", "feedamp_sandbox.server"} <= set(imported.split())


def test_the_provider_info_is_data_that_brings_nothing_with_it(wheel_installation):
    imported = wheel_installation.run_python("""
import sys
before = set(sys.modules)
from feedamp_airflow.provider_info import get_provider_info
assert get_provider_info()["package-name"] == "airflow-provider-feedamp"
print(*(set(sys.modules) - before))
""")
    packages = {name.partition(".")[0] for name in imported.split()}
    assert packages - sys.stdlib_module_names == {"feedamp_airflow"}


BUNDLES = """
import os
from pathlib import Path
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import DagBag
mine, ours = DagBundlesManager().get_all_dag_bundles()
assert (mine.name, ours.name) == ("dags-folder", "feedamp")
ours.initialize()
assert Path(ours.path).parts[-3:] == ("site-packages", "feedamp_airflow", "dags")
assert not os.access(ours.path, os.W_OK)
bag = DagBag(str(ours.path), bundle_path=ours.path, bundle_name=ours.name)
assert not bag.import_errors, bag.import_errors
try:
    from airflow.providers.celery.executors import celery_executor, celery_executor_utils
    print("celery can be imported")
except Exception as error:
    print(repr(error))
print(*sorted(bag.dag_ids))
"""


@pytest.fixture(scope="module")
def said_read_only(wheel_installation):
    """What `BUNDLES` prints where nothing can be written into the installed packages."""
    folders = [path for path in wheel_installation.code.rglob("feedamp*") if path.is_dir()]
    folders += [path for folder in folders for path in folder.rglob("*") if path.is_dir()]
    value = wheel_installation.run_feedamp("init").strip()
    env = wheel_installation.env | {"AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": value}
    obeying = ["setpriv", "--bounding-set", "-all"] if os.geteuid() == 0 else []  # root may write anywhere
    reader = dataclasses.replace(wheel_installation, env=env)
    assert reader.run_feedamp("init").strip() == value
    for folder in folders:
        folder.chmod(0o555)
    try:
        return reader.run(*obeying, reader.python, "-c", BUNDLES).splitlines()
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_the_bundles_of_init_serve_dag_files_from_a_read_only_package(said_read_only):
    assert said_read_only[-1].split() == [name.removesuffix(".py") for name in DAGS]


def test_the_locked_celery_is_one_that_its_provider_can_import(said_read_only):
    """Celery 5.7 was not: the worker and the scheduler of docker-compose.yaml ended at once."""
    assert said_read_only[-2] == "celery can be imported"
