"""The ways to install the project, each in an environment of its own beside the one that runs the tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

# Run inside an installation: what Airflow makes of it.
LOOK = """
import importlib.metadata, json, sys
import feedamp, feedamp_airflow
from airflow.configuration import conf
from airflow.plugins_manager import get_import_errors, get_plugin_info
from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

manager = ProvidersManagerTaskRuntime()
hook = manager.hooks.get("feedamp")
facts = {
    "feedamp": feedamp.__file__,
    "feedamp_airflow": feedamp_airflow.__file__,
    "installed": [d.version for d in importlib.metadata.distributions(name="airflow-provider-feedamp")],
    "provider": "airflow-provider-feedamp" in manager.providers,
    "hook_class": hook and hook.hook_class_name,
    "page_size": conf.get("feedamp", "page_size", fallback=None),
    "plugins": [p["name"] for p in get_plugin_info() if p["name"] == "feedamp"],
    "plugin_errors": get_import_errors(),
    "imported_by_stem": sorted({"hook", "wiring", "provider_info", "cli"} & set(sys.modules)),
    "options": [(s, o) for s, of in conf.configuration_description.items() for o in of["options"]],
}

from airflow.dag_processing.bundles import manager as bundles

facts["of_examples"] = []
bundles.log.exception = lambda text, *values: facts["of_examples"].append(text % values)
bundles._add_provider_example_dags_to_bundle([])
print(json.dumps(facts))
"""


@dataclass
class Installation:
    """A Python environment; `env` is what a shell there would have set, `facts` what Airflow sees in it."""

    python: Path
    env: dict[str, str]
    code: Path  # where `feedamp` and `feedamp_airflow` must come from
    facts: dict[str, Any] = field(default_factory=dict)

    def run(self, *command: str | Path) -> str:
        """Standard output of a command that must succeed, run far from the repository."""
        home = self.env["AIRFLOW_HOME"]
        done = subprocess.run(command, env=self.env, cwd=home, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.fail(f"{command[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def run_python(self, program: str) -> str:
        return self.run(self.python, "-c", program)

    def run_feedamp(self, *arguments: str | Path) -> str:
        return self.run(self.python.with_name("feedamp"), *arguments)

    def look(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self.run_python(LOOK).splitlines()[-1])
        return facts


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without a download."""
    target = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", target, ROOT]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every package of the testing environment except this project, whose copy there must not be found."""
    folder = tmp_path_factory.mktemp("others")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "feedamp" not in entry.name.lower():
            (folder / entry.name).symlink_to(entry)
    return folder


@pytest.fixture(scope="session")
def make_installation(others: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Installation]:
    """Make an environment, install what is given, and where `mount` is set put a copy of the folders before it."""

    def make(name: str, *install: str | Path, mount: bool = False) -> Installation:
        folder = tmp_path_factory.mktemp(name)
        venv.create(folder / "venv", symlinks=True)
        python = folder / "venv" / "bin" / "python"
        (packages,) = (folder / "venv").glob("lib/*/site-packages")
        (packages / "others.pth").write_text(f"import site; site.addsitedir({str(others)!r})\n")
        if install:
            uv = [sys.executable, "-m", "uv", "--quiet", "pip", "install", "--python", python]
            subprocess.run([*uv, "--offline", "--no-deps", *install], check=True)
        home = folder / "airflow"
        home.mkdir()
        env = {
            "PATH": f"{python.parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        }
        if not mount:
            return Installation(python, env, packages)
        mounted = folder / "mounted"
        for part in ("dags", "plugins", "include"):
            shutil.copytree(ROOT / part, mounted / part, ignore=shutil.ignore_patterns("__pycache__"))
        env["PYTHONPATH"] = f"{mounted / 'include'}:{mounted / 'plugins'}"
        env["AIRFLOW__CORE__PLUGINS_FOLDER"] = str(mounted / "plugins")
        env["AIRFLOW__CORE__DAGS_FOLDER"] = str(mounted / "dags")
        return Installation(python, env, mounted)

    return make


@pytest.fixture(scope="session")
def wheel_installation(wheel: Path, make_installation: Callable[..., Installation]) -> Installation:
    made = make_installation("wheel", wheel)
    made.facts = made.look()
    return made


@pytest.fixture(scope="session", params=["editable", "wheel", "wheel and mounts"])
def installation(
    request: pytest.FixtureRequest, make_installation: Callable[..., Installation]
) -> Installation:
    """Each way to install the project, with what Airflow sees there."""
    if request.param == "wheel":
        return request.getfixturevalue("wheel_installation")
    if request.param == "editable":
        made = make_installation("editable", "--no-build-isolation", "--editable", ROOT)
        made.code = ROOT
    else:
        made = make_installation("mounts", request.getfixturevalue("wheel"), mount=True)
    made.facts = made.look()
    return made
