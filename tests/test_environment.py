"""Every environment variable of fastmf is in `docs/environment.md`."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "environment.md"


def variables_in(folders: list[str]) -> set[str]:
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py") if path != Path(__file__)]
    texts = (path.read_text(encoding="utf-8") for path in files)
    return {name for text in texts for name in re.findall(r"\bFASTMF_[A-Z_]+[A-Z]\b", text)}


def rows() -> dict[str, list[str]]:
    table = [line.strip("| ").split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if "| `" in line]
    return {name.strip("`"): cells for name, *cells in table}


def test_every_variable_is_documented_and_every_documented_one_is_read() -> None:
    assert {name for name in rows() if name.startswith("FASTMF_")} == variables_in(
        ["fastmf", "kernels", "bench", "tests", "examples"]
    )


def test_those_of_tests_are_said_to_be() -> None:
    of_library = variables_in(["fastmf", "kernels", "bench"])

    for name, cells in rows().items():
        if name.startswith("FASTMF_"):
            assert cells[0].startswith("For tests") == (name not in of_library)


def test_the_doctor_knows_them_all() -> None:
    from fastmf.cli.doctor import VARIABLES

    assert set(VARIABLES) == variables_in(["fastmf", "kernels"])
