"""The patches that break the code on purpose are complete and apply; `make mutants` runs their tests."""

from __future__ import annotations

import difflib
from collections import Counter

import pytest

import mutants


@pytest.mark.parametrize("mutant", mutants.mutants(), ids=lambda mutant: mutant.name)
def test_a_mutant_applies_to_the_code_as_it_is(mutant, root):
    assert mutants.apply(mutant, root, "--check") is None


@pytest.mark.parametrize("mutant", mutants.mutants(), ids=lambda mutant: mutant.name)
def test_the_test_of_a_mutant_is_there(mutant, root):
    name, _, function = mutant.test.partition("::")
    assert f"def {function.partition('[')[0]}(" in (root / name).read_text(encoding="utf-8")


def test_every_promise_has_two_mutants_at_least():
    counts = Counter(mutant.promise for mutant in mutants.mutants())
    assert counts.keys() == mutants.PROMISES.keys()
    assert min(counts.values()) >= 2


def test_the_table_in_the_docs_lists_them_all(root):
    assert (root / "docs" / "mutants.md").read_text(encoding="utf-8") == mutants.render(mutants.mutants())


def test_a_patch_without_its_three_lines_is_refused(tmp_path):
    (tmp_path / "x.patch").write_text("Promise: 1\nTest: a.py::test_b\n\n--- a/x\n")
    with pytest.raises(ValueError, match="What"):
        mutants.read(tmp_path / "x.patch")


def test_a_mutant_whose_test_stays_green_is_found(tmp_path, root):
    """The program itself must be able to fail: this patch changes only a docstring."""
    name = "include/feedamp/rules/units.py"
    before = (root / name).read_text(encoding="utf-8").splitlines(keepends=True)
    after = ['"""PURE: units."""\n', *before[1:]]
    patch = tmp_path / "harmless.patch"
    head = "Promise: 6\nWhat: Nothing.\nTest: tests/core/test_units.py\n\n"
    patch.write_text(head + "".join(difflib.unified_diff(before, after, f"a/{name}", f"b/{name}")))
    assert mutants.try_one(mutants.read(patch)) == "the test stays green"
