"""The patches that break the code on purpose are complete and apply; `make mutants` runs their tests."""

from __future__ import annotations

import difflib
import re
from collections import Counter, defaultdict

import pytest

import mutants


def together(found):
    """The mutants in lots in which no two change the same file: Git would apply the second to what the first has left."""
    lots, earlier = defaultdict(list), Counter()
    for mutant in found:
        changed = re.findall(r"^\+\+\+ b/(.+)", mutant.file.read_text(encoding="utf-8"), re.MULTILINE)
        at = max(earlier[name] for name in changed)
        for name in changed:
            earlier[name] = at + 1
        lots[at].append(mutant)
    return lots.values()


@pytest.fixture(scope="module")
def misfits(root):
    """What Git says of each mutant that does not apply, asked for a lot at a time and of a lot that fails for each."""
    found = {}
    for first, *others in together(mutants.mutants()):
        if mutants.apply(first, root, "--check", *(str(other.file) for other in others)):
            found |= {mutant.name: mutants.apply(mutant, root, "--check") for mutant in (first, *others)}
    return {name: said for name, said in found.items() if said}


@pytest.mark.parametrize("mutant", mutants.mutants(), ids=lambda mutant: mutant.name)
def test_a_mutant_applies_to_the_code_as_it_is(mutant, misfits):
    assert misfits.get(mutant.name) is None


def test_a_lot_of_mutants_holds_each_once_and_no_file_twice():
    lots = [
        [mutant.file.read_text(encoding="utf-8") for mutant in lot] for lot in together(mutants.mutants())
    ]
    assert sum(map(len, lots)) == len(mutants.mutants())
    for lot in lots:
        changed = re.findall(r"^\+\+\+ .+", "".join(lot), re.MULTILINE)
        assert len(changed) == len(set(changed)) >= len(lot)


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
