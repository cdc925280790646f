"""What is said of work that the CPU does for the backend "cuda": once, at the line of the user, in plain words."""

import warnings
from collections.abc import Iterator

import pytest

from fastmf.cli import main
from fastmf_kernels._cuda import notes


@pytest.fixture(autouse=True)
def _nothing_said() -> Iterator[None]:
    notes.forget()
    yield
    notes.forget()


def test_once_for_each_reason() -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for reason in ("one", "other", "one"):
            notes.say_once(reason, f"the {reason} reason")

    assert [str(note.message) for note in said] == ["the one reason", "the other reason"]
    assert {note.category for note in said} == {notes.OnHostWarning}
    assert {note.filename for note in said} == {__file__}


def test_the_command_prints_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from fastmf.cli import doctor

    def run(_: object) -> int:
        notes.say_once("test", "this runs on the CPU: there is a test; go on")
        return 0

    monkeypatch.setattr(doctor, "run", run)
    assert main(["doctor"]) == 0
    assert capsys.readouterr().err == "fastmf: note: this runs on the CPU: there is a test; go on\n"


def test_other_warnings_of_a_command_are_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastmf.cli import doctor

    monkeypatch.setattr(doctor, "run", lambda _: warnings.warn("something else", RuntimeWarning, stacklevel=1) or 0)
    with pytest.warns(RuntimeWarning, match="something else"):
        main(["doctor"])
