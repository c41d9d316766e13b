from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pytest_prunerob.commands.lock import lock_of
from pytest_prunerob.fingerprint import fingerprint, weights_digest
from tests.unit.commands.conftest import PAIRED, Command, Write, entry


@pytest.fixture
def verify(results: dict[str, Any], write: Write, prunerob: Command) -> Command:
    """``verify(*arguments)`` of the run as it is now against the lock of the run as it was."""
    lock = write("claims.lock", lock_of(copy.deepcopy(results)))

    def run(*arguments: object) -> tuple[int, str, str]:
        return prunerob("verify", write("results.json", results), "--lock", lock, *arguments)

    return run


def test_a_run_verifies_against_its_own_lock(verify: Command) -> None:
    assert verify() == (0, "4 locked claims: as locked\n", "")


def test_deviations_are_printed_one_a_line(results: dict[str, Any], verify: Command) -> None:
    entry(results["claims"], PAIRED).update(verdict="refuted", margin={"low": -0.1, "high": -0.1})
    entry(results["cells"], PAIRED.rpartition("#")[0])["status"] = "failed"
    code, out, _ = verify()
    assert code == 1
    assert out == f"✗ {PAIRED} is refuted, expected supported\n4 locked claims: 1 deviation from the lock\n"


def test_waivers_and_claims_that_are_not_locked_are_shown(
    results: dict[str, Any], write: Write, prunerob: Command
) -> None:
    lock = lock_of(results)
    lock["claims"][PAIRED]["waiver"] = {"reason": "known", "expires": "2999-12-31"}
    del lock["claims"][results["claims"][-1]["id"]]
    files = ["verify", write("results.json", results), "--lock", write("claims.lock", lock)]
    code, out, _ = prunerob(*files)
    assert code == 0
    assert f"  waived until 2999-12-31: {PAIRED} (supported: no longer needed): known\n" in out
    assert f"  1 claims of the run are not in the lock, such as {results['claims'][-1]['id']}\n" in out
    entry(results["claims"], PAIRED).update(verdict="inconclusive")
    entry(results["cells"], PAIRED.rpartition("#")[0])["status"] = "inconclusive"
    write("results.json", results)
    code, out, _ = prunerob(*files)
    assert code == 0
    assert f"{PAIRED} (inconclusive, expected supported): known" in out


def test_the_weights_of_a_subject_are_verified(results: dict[str, Any], tmp_path: Path, verify: Command) -> None:
    state = {"weight": torch.arange(6.0).reshape(2, 3)}
    path = tmp_path / "model.safetensors"
    save_file(state, path)
    for subject in results["subjects"].values():
        subject["weights"] = weights_digest(state)
    role = next(iter(results["subjects"].values()))["roles"][0]
    assert verify("--model", f"{role}={path}")[0] == 0
    state["weight"][0, 0] = 0.5
    save_file(state, path)
    code, out, _ = verify("--model", f"{role}={path}")
    assert code == 1
    assert f"of the run is not {path}" in out
    code, _, error = verify("--model", "prunde=x.safetensors")
    assert code == 4
    assert "unknown subject 'prunde'" in error
    code, _, error = verify("--model", "pruned")
    assert code == 4
    assert "is not NAME=REF" in error


def model() -> nn.Module:
    return nn.Linear(2, 3, bias=False).requires_grad_(False).apply(lambda part: part.weight.fill_(0.5))


def test_a_subject_is_verified_as_a_whole(results: dict[str, Any], verify: Command) -> None:
    digests = list(results["subjects"])
    role = results["subjects"][digests[0]]["roles"][0]
    code, out, _ = verify("--model", f"{role}={__name__}:model")
    assert code == 1
    assert f"the {role} model {digests[0][:12]} of the run is not {__name__}:model" in out
    own = fingerprint(model())
    for digest in digests:
        entry = results["subjects"].pop(digest)
        if role in entry["roles"]:
            results["subjects"][own] = {**entry, "digest": own}
    for cell in results["cells"]:
        cell["subjects"] = []
    assert verify("--model", f"{role}={__name__}:model")[0] == 0


def test_a_stale_run_is_refused(results: dict[str, Any], verify: Command) -> None:
    assert "days ago: allowed are 2 hours" in verify("--max-age", "2h")[1]
    results["started"] = (datetime.now(UTC) - timedelta(minutes=5)).isoformat(timespec="seconds")
    assert verify("--max-age", "2h", "--revision", "5F0E9C1")[0] == 0
    assert verify("--max-age", "4m")[0] == 1
    code, out, _ = verify("--revision", "0123456")
    assert code == 1
    assert "expected 0123456" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--max-age", "soon"), "'soon' is not a positive time"),
        (("--max-age", "-3h"), "'-3h' is not a positive time"),
        (("--max-age", "1e300d"), "is not a positive time"),
        (("--revision", "HEAD"), "'HEAD' is no git revision"),
        (("--deep",), "--deep needs --store DIR"),
    ],
)
def test_bad_arguments_are_one_sentence(verify: Command, arguments: tuple[str, ...], sentence: str) -> None:
    if arguments[-1] == "-3h":
        arguments = ("--max-age=-3h",)
    code, _, error = verify(*arguments)
    assert code == 4
    assert sentence in error
