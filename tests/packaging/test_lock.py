"""requirements.lock pins everything pyproject.toml asks for, by hash, and names no address."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version


@pytest.fixture(scope="module")
def lock(root):
    return (root / "requirements.lock").read_text()


@pytest.fixture(scope="module")
def pins(lock):
    """Every pinned requirement with the text that follows it, as `(requirement, hashes)`."""
    entries = re.findall(r"^([a-z0-9][^\n]*?) \\\n((?:    --hash=[^\n]+\n)+)", lock, re.MULTILINE)
    return [(Requirement(line), hashes.split("--hash=")[1:]) for line, hashes in entries]


# They would bring a hundred packages that no test uses; who installs one resolves it beside the lock.
UNLOCKED_EXTRAS = {"gcs", "azure"}


def asked_for(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())
    yield from project["build-system"]["requires"]
    yield from project["project"]["dependencies"]
    for name, extra in project["project"]["optional-dependencies"].items():
        if name not in UNLOCKED_EXTRAS:
            yield from extra
    groups = project["dependency-groups"]
    yield from (*(wish for wish in groups["dev"] if isinstance(wish, str)), *groups["lowest"])


def test_no_address_stands_in_the_lock(lock):
    assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host|^-f\b", lock, re.MULTILINE)


def test_every_pin_is_exact_and_has_a_hash(lock, pins):
    assert len(pins) == len(re.findall(r"^[a-z0-9]", lock, re.MULTILINE))
    for requirement, hashes in pins:
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), requirement
        assert all(re.match(r"sha256:[0-9a-f]{64}", value) for value in hashes)


@pytest.mark.parametrize("python", ["3.11.0", "3.12.0", "3.13.0"])
def test_what_pyproject_asks_for_is_pinned_on_every_python(root, pins, python):
    environment = {"python_full_version": python, "python_version": python.rpartition(".")[0]}
    pinned = {
        canonicalize_name(pin.name): str(pin.specifier).removeprefix("==")
        for pin, _ in pins
        if pin.marker is None or pin.marker.evaluate(environment)
    }

    def is_pinned(wish):
        version = pinned.get(canonicalize_name(wish.name))
        return version is not None and wish.specifier.contains(version)

    astray = [line for line in asked_for(root) if not is_pinned(Requirement(line))]
    assert astray == [], "run `make lock`"


def test_the_image_has_the_airflow_of_the_lock(root, pins):
    (locked,) = (pin for pin, _ in pins if pin.name == "apache-airflow-core")
    versions = re.findall(
        r"^FROM apache/airflow:slim-([\d.]+)-python", (root / "Dockerfile").read_text(), re.MULTILINE
    )
    assert [f"=={version}" for version in versions] == [str(locked.specifier)]


def test_the_lowest_lock_pins_each_lower_bound_itself(root):
    # A bound below what the other dependencies allow is tested by no one, so it promises too much.
    lock = (root / "requirements-lowest.lock").read_text()
    assert not re.search(r"://", lock)
    pinned = dict(re.findall(r"^([a-z0-9-]+)(?:\[[a-z]+\])?==([^ ;]+)", lock, re.MULTILINE))
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    for wish in map(Requirement, [*project["dependencies"], *project["optional-dependencies"]["postgres"]]):
        [bound] = [one.version for one in wish.specifier if one.operator == ">="]
        assert Version(pinned[canonicalize_name(wish.name)]) == Version(bound), wish
