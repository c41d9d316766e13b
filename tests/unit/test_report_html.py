from __future__ import annotations

import base64
import copy
import hashlib
import itertools
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_prunerob.report import numbers
from pytest_prunerob.report.html import render, write_html
from pytest_prunerob.report.results import empty_running, read, validate
from pytest_prunerob.report.view import attention, outcome, waivers_of, warnings

EXAMPLE = read(Path(__file__).parents[1] / "data" / "results_example.json")
HOSTILE = "<script>alert(1)</script>"
FIXED = {
    "schema",
    "status",
    "started",
    "finished",
    "verdict",
    "expected",
    "population",
    "kind",
    "mode",
    "decision",
    "outcome",
    "level",
}
NAMED_BY_FILE = {"parameters", "packages", "precision", "options", "measurements", "subjects"}


class Page(HTMLParser):
    """The tags with their attribute names, the attribute values, and the text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.values: dict[str, list[str]] = {}
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        for name, value in attrs:
            self.values.setdefault(name, []).append(value or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def with_texts(new: Callable[[str], str]) -> dict[str, Any]:
    """The example with every free text replaced, alike wherever it occurs."""

    def text(old: str) -> str:
        cell, mark, place = old.rpartition("#")
        return new(cell) + mark + place if mark and place.isdigit() else new(old) if old else old

    def walk(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {text(k) if key in NAMED_BY_FILE and v is not None else k: walk(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [walk(item, key) for item in value]
        if not isinstance(value, str) or value in ("inf", "-inf"):
            return value
        return value if key in FIXED else text(value)

    document = walk({**EXAMPLE, "claims": [], "cells": []})
    document["cells"] = [{**walk(cell), "status": cell["status"]} for cell in EXAMPLE["cells"]]
    document["claims"] = [walk(claim) for claim in EXAMPLE["claims"]]
    assert isinstance(document, dict)
    return document


def numbered(payloads: list[str]) -> Callable[[str], str]:
    seen: dict[str, str] = {}

    def new(old: str) -> str:
        return seen.setdefault(old, f"{payloads[len(seen) % len(payloads)]}{len(seen)}")

    return new


def visible(text: str) -> str:
    """What a reader sees of ``text`` where controls and surrogates are named."""
    pattern = "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
    return re.sub(pattern, lambda match: f"[U+{ord(match[0]):04X}]", text)


SPECIAL = st.sampled_from(
    [
        HOSTILE,
        '" onload="alert(1)',
        "'><img src=x>",
        "</style><b>",
        "</title>",
        "{{ 7*7 }}",
        "{% raw %}",
        "<!--",
        "]]>",
        "&amp;",
        "javascript:alert(1)",
        "\x00\x1b[31m",
        "\ud800",
        "\u202eevil",
        "&#60;b&#62;",
    ]
)
PLAIN = with_texts(numbered(["plain"]))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(SPECIAL | st.text(st.characters(exclude_characters="\n"), max_size=30), min_size=1, max_size=8))
def test_no_text_of_the_document_becomes_markup(payloads: list[str]) -> None:
    document = with_texts(numbered(payloads))
    validate(document)
    page, plain = Page(render(document)), Page(render(PLAIN))
    assert page.tags == plain.tags
    assert {name: len(values) for name, values in page.values.items()} == {
        name: len(values) for name, values in plain.values.items()
    }
    assert all(value.startswith("#") for value in page.values["href"])
    for claim in document["claims"]:
        assert visible(claim["id"]) in page.text


FINITE = st.floats(allow_nan=False, allow_infinity=False)
EXACT = ("interval", "score_interval", "reported")
POOLS = {
    "finite": FINITE,
    "extended": FINITE | st.sampled_from(["inf", "-inf", None, 0, 1e-12, 0.99999]),
    "natural": st.integers(0, 2**53) | st.sampled_from([0, 1, 999, 1000]),
    "seconds": st.floats(0, sys.float_info.max),
    "confidence": st.floats(0, 1),
}


def with_numbers(pools: dict[str, list[Any]]) -> dict[str, Any]:
    """The example with every number replaced by the next of the pool that the schema allows there."""
    endless = {name: itertools.cycle(pool) for name, pool in pools.items()}

    def walk(value: Any, key: str, parent: str) -> Any:
        if isinstance(value, dict):
            return {k: walk(v, k, key) for k, v in value.items()}
        if isinstance(value, list):
            return [walk(item, key, key) for item in value]
        if key in ("low", "high", "value", "limit", "difference") and parent not in EXACT:
            return next(endless["extended"])
        if isinstance(value, bool) or not isinstance(value, int | float) or key == "exit_status":
            return value
        if key in ("seconds", "confidence", "p_value", "holm"):
            return next(endless["seconds" if key == "seconds" else "confidence"])
        return next(endless["finite" if parent in EXACT or key == "coefficient" else "natural"])

    return dict(walk(EXAMPLE, "", ""))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.fixed_dictionaries({name: st.lists(pool, min_size=1, max_size=7) for name, pool in POOLS.items()}))
def test_any_valid_number_can_be_shown(pools: dict[str, list[Any]]) -> None:
    document = with_numbers(pools)
    validate(document)
    text = Page(render(document)).text
    assert " nan" not in text
    assert "None" not in text


def test_the_example_says_what_matters_first() -> None:
    assert outcome(EXAMPLE) == (
        "5 of 8 claims came out as expected; 1 refuted; 1 inconclusive; 1 in error; "
        "1 cell crashed; 1 cell not evaluated."
    )
    assert [notice.label for notice in attention(EXAMPLE)] == [
        "refuted, expected supported",
        "inconclusive",
        "error",
        "failed check",
        "crashed",
        "not evaluated",
        "quarantined",
    ]
    text = " ".join(Page(render(EXAMPLE)).text.split())
    assert "This run is incomplete: 1 planned cell came to no result. It supports no release." in text
    assert "44.07 % 65.0 % +20.9 points 58.0–71.6 % ▲ above the reported number" in text
    assert "38.2 % [0.0 %, 20.5 %] early decision – –" in text
    assert "0.882 no claim of this cell compares it" in text
    assert "Not refuted by autoattack standard, linf, eps 0.2: apgd-ce, apgd-t, fab-t, square" in text
    assert "apgd-ce 138 1 of 1 14 980 11 620 3.9 s apgd-t – not run – – –" in text
    assert "exact and early, before every sample was measured" in text


def test_the_example_shows_what_a_verdict_stands_on() -> None:
    text = " ".join(Page(render(EXAMPLE)).text.split())
    assert "Decisionexact, all samples measured" in text
    assert "Decisionsequential, at 95 %" in text
    assert "Decisionby exact bounds, all samples measured" in text
    assert "Tango 95 % interval of the difference[−2.1, +3.1] points" in text
    assert "p, one-sided0.0121p, adjusted by Holm0.0363" in text
    assert "To settle it: 3 more samples in S10: a larger test set or a higher sparsity" in text
    assert "Survival counts by the adequacy of apgd-t" in text
    assert "witnessesunknown" in text
    kept = copy.deepcopy(EXAMPLE)
    kept["options"]["witness"] = "hash"
    assert "witnesseshashes only" in " ".join(Page(render(kept)).text.split())


def test_the_checks_of_the_attacks_are_shown() -> None:
    page = Page(render(EXAMPLE))
    text = " ".join(page.text.split())
    assert "failed-searches fmn failed: inconclusive 0.12 0.05 the search failed on 12 % of the samples" in text
    assert "4 passed, 1 not run zero-gradients, apgd-ce: passed, 0 (limit 0.01)" in text
    assert "logit-range – worth knowing 0.8 1 logits are unusually small" in text
    notices = [notice for notice in attention(EXAMPLE) if notice.label == "failed check"]
    assert [(notice.title, notice.detail, notice.where) for notice in notices] == [
        (
            "failed-searches, fmn: dense d6a98598212e",
            "the search failed on 12 % of the samples",
            "leaves 1 claim without a verdict",
        )
    ]
    without = copy.deepcopy(EXAMPLE)
    for table in ("subjects", "measurements"):
        for entry in without[table].values():
            entry["checks"] = []
    assert "Adequacy of the attacks" not in render(without)


def test_a_selection_and_a_spent_budget_are_said_above_everything_else() -> None:
    assert warnings(EXAMPLE) == [
        "The time budget of 30m was spent before every claim was decided: run again to go on.",
        "The run was stopped early, by -x, --maxfail or an interruption: what came later is not here.",
        "4 tests were left out by -k, -m or a plugin: this report says nothing about them.",
    ]
    html = render(EXAMPLE)
    assert html.index("The time budget of 30m") < html.index("<h1>")
    whole = copy.deepcopy(EXAMPLE)
    whole["selection"].update(deselected=0, stopped_early=False)
    whole["budget"]["exhausted"] = False
    assert warnings(whole) == []
    assert 'class="banner warning"' not in render(whole)


def lock_with(waivers: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """A lock of the example with waivers (reason, day) by claim."""
    claims = {claim["id"]: {"text": claim["text"], "expected": "supported"} for claim in EXAMPLE["claims"]}
    claims["gone.py::test_gone[a]#1"] = {"text": "it is gone", "expected": "supported"}
    for name, entry in claims.items():
        reason, expires = waivers.get(name, ("", ""))
        entry["waiver"] = {"reason": reason, "expires": expires} if expires else None  # type: ignore[assignment]
    return {"claims": claims}


def test_waivers_are_shown_with_reason_and_day_and_expire() -> None:
    refuted, unsettled = EXAMPLE["claims"][1]["id"], EXAMPLE["claims"][2]["id"]
    today = date(2026, 11, 21)
    lock = lock_with(
        {
            refuted: (f"ticket 412 {HOSTILE}", "2026-11-21"),
            unsettled: ("more samples soon", "2026-11-20"),
            "gone.py::test_gone[a]#1": ("left", "2027-01-01"),
        }
    )
    waivers = waivers_of(lock, today)
    assert [(waiver.claim, waiver.expired) for waiver in waivers] == [
        (unsettled, True),
        (refuted, False),
        ("gone.py::test_gone[a]#1", False),
    ]
    labels = [notice.label for notice in attention(EXAMPLE, waivers)]
    assert labels[:3] == ["inconclusive", "error", "refuted, waived until 2026-11-21"]
    html = render(EXAMPLE, lock, today)
    page = Page(html)
    text = " ".join(page.text.split())
    assert f"Waived until 2026-11-21: ticket 412 {HOSTILE}" in text
    assert "Waiver expired on 2026-11-20: more samples soon" in text
    assert "gone.py::test_gone[a]#1not judged by this run 2027-01-01 left" in text
    assert "script" not in {tag for tag, _ in page.tags}
    assert {value[1:] for value in page.values["href"]} <= set(page.values["id"])
    assert "Waive" not in render(EXAMPLE)


def test_a_clean_run_says_so_and_a_running_one_does_not() -> None:
    clean = copy.deepcopy(EXAMPLE)
    clean["cells"] = [cell for cell in clean["cells"] if cell["status"] in ("passed", "xfailed")]
    kept = {cell["id"] for cell in clean["cells"]}
    clean["claims"] = [claim for claim in clean["claims"] if claim["cell"] in kept]
    clean["selection"]["planned"] = 3
    clean["store"]["quarantined"] = []
    clean.update(status="complete", exit_status=0)
    validate(clean)
    assert outcome(clean) == "4 of 4 claims came out as expected; 0 refuted; 0 cells not evaluated."
    page = render(clean)
    assert "Everything came out as expected" in page
    assert "Needs attention" not in page

    clean["exit_status"] = 1
    page = render(clean)
    assert "Everything came out as expected" not in page
    assert "exit status 1 although every claim came out as expected" in page

    clean["selection"]["planned"] = 4
    assert outcome(clean).endswith("1 cell not evaluated.")
    assert [notice.label for notice in attention(clean)] == ["not evaluated"]

    running = render(empty_running("2026-03-04T09:12:30+00:00"))
    assert "This run has not finished: what follows is not a result." in running
    assert "No claim was judged; 0 cells not evaluated." in " ".join(Page(running).text.split())


def test_a_claim_expected_to_be_refuted_but_supported_needs_attention() -> None:
    document = copy.deepcopy(EXAMPLE)
    document["claims"][0]["expected"] = "refuted"
    assert "1 supported against expectation" in outcome(document)
    assert "supported, expected refuted" in [notice.label for notice in attention(document)]


def test_the_page_is_self_contained_and_its_policy_names_its_own_style() -> None:
    html = render(EXAMPLE)
    style = re.search("<style>(.*?)</style>", html, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    page = Page(html)
    policy = "default-src 'none'; style-src 'sha256-" + digest + "'; base-uri 'none'; form-action 'none'"
    assert policy in page.values["content"]
    names = {tag for tag, _ in page.tags}
    assert names.isdisjoint({"script", "img", "link", "iframe", "svg", "form", "object"})
    attributes = {name for _, given in page.tags for name in given}
    assert attributes.isdisjoint({"style", "src", "srcset", "action"})
    assert not [name for name in attributes if name.startswith("on")]
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_links_lead_somewhere_and_tables_are_labelled() -> None:
    page = Page(render(EXAMPLE))
    ids = page.values["id"]
    assert len(ids) == len(set(ids))
    assert {value[1:] for value in page.values["href"]} <= set(ids)
    assert set(page.values["aria-labelledby"]) <= set(ids)
    tags = [tag for tag, _ in page.tags]
    assert tags.count("table") == tags.count("caption")
    assert {"header", "nav", "main", "footer", "h1"} <= set(tags)
    assert all("scope" in attributes for tag, attributes in page.tags if tag == "th")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (numbers.value(0.645, "share", 200), "64.5 %"),
        (numbers.value(0.4407, "share", 10_000), "44.07 %"),
        (numbers.value(0.99996, "share", 200), "99.996 %"),
        (numbers.value(1.0, "share", 200), "100.0 %"),
        (numbers.value(0.00001, "share", 200), "0.001 %"),
        (numbers.value(0.8823, "probability"), "0.882"),
        (numbers.value(0.99996, "probability"), "0.99996"),
        (numbers.value("inf", "number"), "∞"),
        (numbers.value(0.00001234, "number"), "1.234 × 10⁻⁵"),
        (numbers.value(20778, "count"), "20 778"),
        (numbers.value(20778, "bytes"), "20 778 B"),
        (numbers.value(3.14159, "ms"), "3.142 ms"),
        (numbers.difference(-2.5, -2.5, "ms"), "−2.5 ms"),
        (numbers.value(None, "share"), "–"),
        (numbers.difference(-0.615, -0.41, "share", 200), "[−61.5, −41.0] points"),
        (numbers.difference(0.0001, 0.0001, "share", 200), "+0.01 points"),
        (numbers.difference(0, 0, "share", 200), "0.0 points"),
        (numbers.interval({"low": -0.02, "high": 0.05}, "share", 200), "−2.0 to 5.0 %"),
        (numbers.seconds(138.2), "2 min 18 s"),
        (numbers.seconds(59.97), "1 min 00 s"),
        (numbers.seconds(3840), "1 h 04 min"),
    ],
)
def test_how_numbers_are_written(written: str, expected: str) -> None:
    assert written.replace(numbers.SPACE, " ") == expected


def test_a_real_browser_shows_every_claim_and_runs_nothing(tmp_path: Path) -> None:
    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    browser = next((path for path in found if path), None)
    if browser is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on PATH")
    attacks = ["<script>document.title='owned'</script>", "<img src=x onerror=\"document.title='owned'\">"]
    document = with_texts(numbered(attacks))
    report = tmp_path / "report.html"
    write_html(report, document)
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    command = [browser, *flags.split(), "--disable-component-update", "--disable-sync", "--enable-logging=stderr"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", report.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    page = Page(done.stdout)
    for claim in document["claims"]:
        assert claim["id"] in page.text
    title = re.search("<title>(.*?)</title>", done.stdout)
    assert title is not None
    assert unescape(title[1]).startswith("Robustness claims: 5 of 8")
    assert {"script", "img"}.isdisjoint(tag for tag, _ in page.tags)
    assert "Content Security Policy" not in done.stderr
    assert "CONSOLE" not in done.stderr


def test_an_estimate_is_no_attack_that_something_survived() -> None:
    results = copy.deepcopy(EXAMPLE)
    claim = next(c for c in results["claims"] if c["verdict"] == "supported" and c["attack"])
    for term in claim["terms"]:
        term["metric"] = "clever"
    one = next(iter(results["measurements"].values()))
    one.update(kind="estimate", survived=6, undecided=0, errors=1)
    page = Page(render(results)).text
    assert f"Estimated by {claim['attack']}" in " ".join(page.split())
    assert "6 estimates, 0 left, 1 error" in " ".join(page.split())
