#!/bin/sh
# tablib takes the names of the first JSON object for all of them, and puts the values of the others under these by place.
#
# One would expect: `Dataset().load(text, format="json")` of a list of objects puts each value into the column of its name. The
# members of a JSON object have no order, and a member that an object lacks leaves a gap, or is an error.
# What happens: the headers are the names of the first object, and of each later one only the values are taken, in the order
# in which they stand. Where a server writes `tax` before `shipping`, the two amounts change places; where an order has a note
# and no tracking number, the note stands under `tracking`. YAML and `dataset.dict = [...]` are read alike. Only another number
# of members is refused. An export as CSV looks complete, and nothing is raised or logged.
# For a pipeline: servers leave out what is empty, and some write members as a hash map yields them, so the first answers of a
# test are in order and later ones are not. Give each row by name, `[order.get(name) for name in names]`, with `append`.
# Seen with tablib 3.10.0.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install 'tablib[yaml]==3.10.0'
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import json
from importlib.metadata import version

import tablib

AMOUNTS = [{"order": "A", "shipping": "4.90", "tax": "19.00"}, {"order": "B", "tax": "19.00", "shipping": "4.90"}]
NOTES = [{"order": "A", "tracking": "T1"}, {"order": "B", "note": "call first"}]
MORE = [{"order": "A", "tracking": "T1"}, {"order": "B"}]

swapped = tablib.Dataset().load(json.dumps(AMOUNTS), format="json")
by_yaml = tablib.Dataset().load(
    "- {order: A, shipping: '4.90', tax: '19.00'}\n- {order: B, tax: '19.00', shipping: '4.90'}\n", format="yaml"
)
by_dict = tablib.Dataset()
by_dict.dict = AMOUNTS
renamed = tablib.Dataset().load(json.dumps(NOTES), format="json")
try:
    tablib.Dataset().load(json.dumps(MORE), format="json")
    refused = False
except tablib.InvalidDimensions:
    refused = True
print("tablib", version("tablib"))
print(swapped.export("csv"))
print(renamed.export("csv"))
print("another number of members:", "refused" if refused else "taken")
assert swapped["shipping"] == ["4.90", "19.00"] and swapped["tax"] == ["19.00", "4.90"], "the behavior has changed"
assert by_yaml.dict == by_dict.dict == swapped.dict, "the behavior has changed"
assert renamed.headers == ["order", "tracking"] and renamed["tracking"] == ["T1", "call first"], "the behavior has changed"
assert refused
PYTHON
