"""Inputs that are nearly right: the valid one with a few edits."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from([0, 1, -1, 2**63, 10**30, 0.5, "", "inf", "..", "/etc/passwd", "0" * 64, "<script>"])
    | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def edited(draw: st.DrawFn, valid: bytes, pieces: tuple[bytes, ...] = ()) -> bytes:
    """``valid`` with one to four places cut out, overwritten, doubled or filled with pieces."""
    found = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(found)))
        end = min(len(found), start + draw(st.sampled_from([0, 0, 1, 1, 2, 5, 20, 200])))
        new = draw(st.sampled_from([b"", bytes(found[start:end]) * 2, *pieces]) | st.binary(max_size=4))
        found[start:end] = new
    return bytes(found)


@st.composite
def altered(draw: st.DrawFn, valid: Any) -> Any:
    """The JSON value ``valid`` with one to three values replaced, removed or added somewhere inside."""
    found = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, 3))):
        holders = [value for value in _inside(found) if isinstance(value, dict | list) and value]
        if not holders:
            break
        holder = draw(st.sampled_from(holders))
        key = (
            draw(st.sampled_from(sorted(holder, key=str)))
            if isinstance(holder, dict)
            else draw(st.integers(0, len(holder) - 1))
        )
        what = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if what == "remove":
            del holder[key]
        elif what == "add" and isinstance(holder, dict):
            holder[draw(st.text(max_size=5))] = draw(JSON)
        else:
            holder[key] = draw(JSON)
    return found


def dumped(value: Any) -> bytes:
    """``value`` as JSON, with NaN and infinities as Python writes them."""
    return json.dumps(value).encode()


def _inside(value: Any) -> list[Any]:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [value, *(found for item in items for found in _inside(item))]
