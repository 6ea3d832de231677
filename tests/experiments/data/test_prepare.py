"""Preparing data: what counts as prepared, and a quick, single line where the archive is out of reach."""

import json
import socket
import time
from pathlib import Path

import pytest

from experiments.data import prepare


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("content", "expected"), [('{"fileFormat": "array_record"}', True), ("{", False), ("{}", False)]
)
def test_only_a_random_access_copy_is_prepared(folder: Path, content: str, expected: bool) -> None:
    assert not prepare.is_prepared("cifar10")
    version = folder / "cifar10" / "3.0.2"
    version.mkdir(parents=True)
    (version / "dataset_info.json").write_text(content)
    assert prepare.is_prepared("cifar10") is expected


def test_a_prepared_set_needs_no_look_at_its_archive(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = folder / "mnist" / "3.0.1"
    version.mkdir(parents=True)
    (version / "dataset_info.json").write_text(json.dumps({"fileFormat": "array_record"}))
    monkeypatch.setattr(prepare, "answers", lambda *args: pytest.fail("asked the archive"))
    assert prepare.check("mnist") == 0


@pytest.mark.parametrize(("reachable", "code"), [(True, 3), (False, 1)])
def test_the_code_tells_whether_the_archive_answers(folder, monkeypatch, capsys, reachable: bool, code: int) -> None:
    monkeypatch.setattr(prepare, "answers", lambda *args: reachable)
    assert prepare.check("cifar10") == code
    assert capsys.readouterr().err.count("\n") == (0 if reachable else 1)


def test_an_unknown_set_is_one_line(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert prepare.check("cifar_ten") == 1
    assert capsys.readouterr().err == "TFDS knows no data set named 'cifar_ten'\n"


def test_a_server_that_never_answers_is_given_up_in_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        start = time.monotonic()
        assert not prepare.answers(f"http://127.0.0.1:{silent.getsockname()[1]}/", seconds=0.5)
        assert time.monotonic() - start < 5.0
