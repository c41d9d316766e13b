from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pytest_prunerob import cli
from pytest_prunerob.store import Store
from tests.unit.store.samples import DONE, STARTED, content, files, filled, one


def prunerob(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, list[str], str]:
    """Exit code, lines on stdout, stderr."""
    code = cli.main(["store", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err


def test_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = filled(tmp_path)
    hour = time.time() - 3600
    for path in store.folder(DONE).iterdir():
        os.utime(path, (hour, hour))
    (tmp_path / "v7").mkdir()
    code, lines, err = prunerob(capsys, "list", "--store", tmp_path)
    assert (code, err) == (0, "")
    assert lines[0].split() == ["KEY", "KIND", "SUBJECT", "PLAN", "SAMPLES", "STATE", "SIZE", "AGE"]
    words = [line.split() for line in lines[1:4]]
    assert words[0][:3] == ["ab0000000000", "decide", "pruned"]
    assert words[0][-6:-4] == ["4", "complete"]
    assert words[0][-2:] == ["1", "h"]
    assert words[1][-6:-4] == ["4", "1/2"]
    assert words[2][:5] == ["ef0000000000", "model", "cnn,", "pgd", "training,"]
    assert lines[4].startswith("3 entries, ")
    assert lines[5] == (
        "v7: results in schema 7, which is that of a newer version of pytest-prunerob; this one reads schema 1 only"
    )


def test_list_prints_nothing_that_steers_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path)
    store.create(DONE, content(DONE, kind="\x1b]0;owned\x07", subject="\x9b2J\n\ud800"))
    code, lines, _ = prunerob(capsys, "list", "--store", tmp_path)
    assert (code, len(lines)) == (0, 3)
    assert "?]0;owned?" in lines[1]
    assert all(line.isprintable() for line in lines)


def test_the_default_store_is_that_of_the_plugin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path / ".prunerob")
    monkeypatch.chdir(tmp_path)
    assert prunerob(capsys, "verify")[1] == ["9 files, all intact"]


def test_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(tmp_path)
    assert prunerob(capsys, "verify", "--store", tmp_path) == (0, ["9 files, all intact"], "")
    path = one(tmp_path, DONE, "seg-*")
    path.write_bytes(path.read_bytes() + b" ")
    before = files(tmp_path)
    code, lines, _ = prunerob(capsys, "verify", "--store", tmp_path)
    assert (code, len(lines)) == (1, 2)
    assert lines[0] == f"✗ {DONE[:12]}/{path.name[:20]}: its content does not match its name"
    assert lines[1] == "9 files, 1 problems; nothing was moved: --quarantine does"
    assert files(tmp_path) == before
    code, lines, _ = prunerob(capsys, "verify", "--quarantine", "--store", tmp_path)
    assert (code, lines[-1]) == (1, "9 files, 1 problems; set aside: the next run measures them again")
    assert prunerob(capsys, "verify", "--store", tmp_path) == (0, ["8 files, all intact"], "")


def test_export_and_import(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(tmp_path / "gpu")
    code, lines, _ = prunerob(capsys, "export", tmp_path / "artifact", "--store", tmp_path / "gpu")
    assert (code, len(lines)) == (0, 1)
    assert lines[0].endswith("copied, 0 were there, 0 refused")
    assert prunerob(capsys, "import", tmp_path / "artifact", "--store", tmp_path / "cpu")[0] == 0
    assert files(tmp_path / "cpu") == files(tmp_path / "gpu")
    code, lines, _ = prunerob(capsys, "import", tmp_path / "artifact", "--store", tmp_path / "cpu")
    assert (code, lines) == (0, ["0 files (0 B) copied, 9 were there, 0 refused"])
    path = one(tmp_path / "artifact", STARTED, "manifest.json")
    path.write_bytes(b"{}")
    code, lines, _ = prunerob(capsys, "import", tmp_path / "artifact", "--store", tmp_path / "other")
    assert code == 1
    assert lines[0].startswith(f"✗ cd/{STARTED[:20]}: nothing of it was taken: it is no manifest")
    assert lines[1].endswith("copied, 0 were there, 1 refused")


def test_import_tells_what_it_found_damaged_in_the_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(tmp_path / "source")
    filled(tmp_path / "target")
    path = one(tmp_path / "target", DONE, "manifest.json")
    path.write_bytes(b"{}")
    code, lines, _ = prunerob(capsys, "import", tmp_path / "source", "--store", tmp_path / "target")
    assert (code, lines[-1].endswith("0 refused")) == (0, True)
    assert lines[0].startswith(f"✗ {DONE[:12]}/manifest.json: the manifest is damaged")
    assert Store(tmp_path / "target").manifest(DONE) == content(DONE)


def test_prune_deletes_only_with_yes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(tmp_path)
    before = files(tmp_path)
    size = sum(len(payload) for name, payload in before.items() if STARTED in name)
    code, lines, _ = prunerob(capsys, "prune", "--incomplete", "--store", tmp_path)
    assert code == 0
    assert lines[0].startswith("would delete cd0000000000  decide  pruned 555555555555")
    assert lines[0].endswith(f": 1/2 ({size / 1000:.1f} kB)")
    assert lines[1] == f"{size / 1000:.1f} kB would be freed: nothing was deleted, --yes does"
    assert files(tmp_path) == before
    code, lines, _ = prunerob(capsys, "prune", "--incomplete", "--yes", "--store", tmp_path)
    assert (code, lines[1]) == (0, f"{size / 1000:.1f} kB freed")
    assert files(tmp_path) == {name: payload for name, payload in before.items() if STARTED not in name}
    code, lines, _ = prunerob(capsys, "prune", "--older-than", "0.5", "--store", tmp_path)
    assert lines == ["0 B would be freed: nothing was deleted, --yes does"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["list", "--store", "none"], "there is no store 'none'"),
        (["verify", "--store", "none"], "there is no store 'none'"),
        (["import", "none", "--store", "here"], "there is no store 'none'"),
        (["export", "there", "--store", "none"], "there is no store 'none'"),
        (["import", "here/../here", "--store", "here"], "is both source and target: name another directory"),
        (["import", ".", "--store", "here"], "'.' is no store: it has no directory v1"),
        (["prune", "--store", "here"], "prune needs to know what: --older-than DAYS, --incomplete, --quarantine or"),
        (["prune", "--older-than", "-1", "--store", "here"], "--older-than=-1.0 is not a number of days of at least 0"),
        (["prune", "--older-than", "nan", "--store", "here"], "--older-than=nan is not a number of days"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    code, lines, err = prunerob(capsys, *arguments)
    assert (code, lines) == (4, [])
    assert err.startswith("prunerob store: ")
    assert sentence in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "none").exists()
    assert not (tmp_path / "there").exists()
