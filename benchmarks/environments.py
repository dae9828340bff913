"""Where the programs of the suite run: ours in this environment, each peer in one of its own, made when first asked for."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ways.clock import GO, Job

ROOT = Path(__file__).resolve().parents[1]
WAYS = ROOT / "benchmarks" / "ways"
PEERS = ROOT / ".venv-peers"
BESIDE_OURS = [
    str(ROOT / folder) for folder in ("tools", "tests/support")
]  # what tests and the demo start servers with
sys.path += [path for path in BESIDE_OURS if path not in sys.path]
OURS = ""  # this environment
Figures = dict[str, dict[str, float]]  # of each phase, by unit
Round = dict[str, Figures]  # of each way


def python_of(name: str) -> str:
    """The interpreter of an environment, which is made or renewed if its pins are others than at the last time."""
    if name == OURS:
        return sys.executable
    pins, folder = WAYS / f"{name}.txt", PEERS / name
    made = folder / "made-from"
    digest = hashlib.sha256(pins.read_bytes()).hexdigest()
    if not made.exists() or made.read_text() != digest:
        print(f"making an environment with the {len(pins.read_text().splitlines())} packages of {pins.name}")
        shutil.rmtree(folder, ignore_errors=True)
        uv = str(Path(sys.executable).with_name("uv"))
        python = str(folder / "bin" / "python")
        _do(uv, "--quiet", "venv", "--python", sys.executable, str(folder))
        _do(
            uv,
            "--quiet",
            "--system-certs",
            "pip",
            "install",
            "--python",
            python,
            "--no-deps",
            "-r",
            str(pins),
        )
        made.write_text(digest)
    return str(folder / "bin" / "python")


def earlier(commit: str) -> Path:
    """The folder with the files of an earlier commit of this repository."""
    folder = PEERS / f"commit-{commit}"
    if not folder.exists():
        being_made = folder.with_suffix(".part")
        shutil.rmtree(being_made, ignore_errors=True)
        being_made.mkdir(parents=True)
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE, check=True)
        subprocess.run(["tar", "x"], cwd=being_made, input=archive.stdout, check=True)
        being_made.rename(folder)
    return folder


def environment(code: Path = ROOT) -> dict[str, str]:
    """Variables for a program that imports ours from this copy of the repository."""
    paths = [str(code / folder) for folder in ("include", "plugins", "tools", "tests/support")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "FEEDAMP_BENCH_CODE": str(code)}


def run(program: str, environment_name: str, job: Job, *, code: Path = ROOT) -> Figures:
    """The figures of one way by phase; as phase "process" the CPU seconds of its whole process, with imports and a first page.

    Raises:
        RuntimeError: the program failed.
    """
    command = [python_of(environment_name), str(WAYS / f"{program}.py"), json.dumps(asdict(job))]
    variables = environment(code) if environment_name == OURS else dict(os.environ)
    if environment_name == "tap":
        python_of("target")
        variables["FEEDAMP_BENCH_TARGET"] = str(PEERS / "target" / "bin" / "target-jsonl")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{program} failed:\n{done.stderr[-3000:]}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return figures | {"process": {"cpu_s": cpu_s}}


def run_together(program: str, jobs: list[Job]) -> list[Figures]:
    """The figures of several processes of ours; each warms up, and all begin once the last of them has.

    Raises:
        RuntimeError: one of them failed.
    """
    folder = Path(jobs[0].folder)
    started = [
        subprocess.Popen(
            [sys.executable, str(WAYS / f"{program}.py"), json.dumps(asdict(job))],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for job in jobs
    ]
    while not all((folder / f"ready-{job.first_seller}").exists() for job in jobs):
        if any(process.poll() for process in started):
            break
        time.sleep(0.02)
    (folder / GO).touch()
    found = []
    for process in started:
        out, error = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{program} failed:\n{error[-3000:]}")
        found.append(json.loads(out.splitlines()[-1]))
    return found


@contextmanager
def postgres_server(is_needed: bool) -> Iterator[Any]:
    """A Postgres server that makes databases, as the tests have it; None if it is not needed."""
    if not is_needed:
        yield None
        return
    from postgres import serving

    with serving() as server:
        yield server


def _do(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr}")
