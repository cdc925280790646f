"""Recommendations in parts: an interrupted call continues, damaged parts are made again, orphans go away."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastmf
from fastmf.answering import scoring
from fastmf.answering.answers import Recommendations
from fastmf.common import leftovers
from fastmf.errors import OutputError, OutputExistsError
from fastmf.keeping import recommendations
from fastmf.models import FactorModel


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FactorModel:
    """A model whose users make five parts."""
    monkeypatch.setattr(scoring, "_BATCH", 5)
    monkeypatch.setattr(recommendations, "_BATCHES_A_PART", 1)
    return fastmf.ALS(n_factors=3, n_epochs=1).fit(fastmf.testing.power_law(25, 20, 160, n_factors=2, seed=0))


def interrupt(model: FactorModel, path: Path, after: int, monkeypatch: pytest.MonkeyPatch, k: int = 4) -> Path:
    """Interrupt a call after some parts; returns where they are."""
    before = set(path.parent.glob(f".{path.name}.parts-*"))
    with monkeypatch.context() as patch:
        describe = recommendations._describe

        def describe_or_die(file: Path) -> dict[str, object]:
            if file.name == f"part-{after:05d}.parquet":
                raise KeyboardInterrupt
            return describe(file)

        patch.setattr(recommendations, "_describe", describe_or_die)
        with pytest.raises(KeyboardInterrupt) as raised:
            model.recommend_to_parquet(path, k, overwrite=True)
    (parts,) = set(path.parent.glob(f".{path.name}.parts-*")) - before
    (note,) = raised.value.__notes__
    assert note == f"{after} finished parts are kept in {parts}: the same call continues after them"
    return parts


def drop_a_row(part: Path) -> None:
    pq.write_table(pq.read_table(part).slice(1), part)


def change_a_score(part: Path) -> None:
    table = pq.read_table(part)
    scores = table["score"].to_numpy().copy()
    scores[0] += 1
    pq.write_table(table.set_column(3, "score", [scores]), part)


def cut_short(part: Path) -> None:
    os.truncate(part, part.stat().st_size // 2)


def flip_a_bit(part: Path) -> None:
    content = bytearray(part.read_bytes())
    content[len(content) // 3] ^= 4
    part.write_bytes(content)


def empty(part: Path) -> None:
    part.write_bytes(b"")


def take_away(part: Path) -> None:
    part.unlink()


def take_its_record_away(part: Path) -> None:
    part.with_suffix(".json").unlink()


def spoil_its_record(part: Path) -> None:
    part.with_suffix(".json").write_text('{"n_rows": ')


def exchange_with_the_next(part: Path) -> None:
    other = part.with_name("part-00002.parquet")
    first, second = part.read_bytes(), other.read_bytes()
    part.write_bytes(second)
    other.write_bytes(first)


DAMAGE = (
    *(drop_a_row, change_a_score, cut_short, flip_a_bit, empty, take_away),
    *(take_its_record_away, spoil_its_record, exchange_with_the_next),
)


@pytest.mark.parametrize("partitioned", [False, True], ids=["a file", "a directory"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_part_is_made_again(
    damage: Callable[[Path], None],
    partitioned: bool,
    model: FactorModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model.recommend_to_parquet(tmp_path / "whole", 4, partitioned=partitioned)
    parts = interrupt(model, tmp_path / "out", 4, monkeypatch)
    damage(parts / "part-00001.parquet")

    n_rows = model.recommend_to_parquet(tmp_path / "out", 4, partitioned=partitioned)

    whole, out = (
        [path] if path.is_file() else sorted(path.iterdir()) for path in (tmp_path / "whole", tmp_path / "out")
    )
    assert [file.read_bytes() for file in out] == [file.read_bytes() for file in whole]
    assert n_rows == len(pq.read_table(tmp_path / "out"))
    assert sorted(os.listdir(tmp_path)) == ["out", "whole"]


def test_whole_parts_are_not_made_again(model: FactorModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = interrupt(model, tmp_path / "out", 3, monkeypatch)
    assert sorted(path.name for path in parts.glob("*.json")) == [f"part-{n:05d}.json" for n in range(3)]
    record = json.loads((parts / "part-00000.json").read_text())
    assert record["n_rows"] == pq.read_metadata(parts / "part-00000.parquet").num_rows
    computed, to_arrow = [], Recommendations.to_arrow

    def counted(self: Recommendations) -> pa.Table:
        computed.append(self)
        return to_arrow(self)

    monkeypatch.setattr(Recommendations, "to_arrow", counted)
    model.recommend_to_parquet(tmp_path / "out", 4)

    assert len(computed) == 2


@pytest.mark.parametrize("what", ["another k", "another model", "a table"])
def test_the_next_write_of_the_same_output_removes_orphaned_parts(
    what: str, model: FactorModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orphans = interrupt(model, tmp_path / "out", 2, monkeypatch)
    elsewhere = interrupt(model, tmp_path / "elsewhere", 2, monkeypatch)

    if what == "another k":
        model.recommend_to_parquet(tmp_path / "out", 3)
    elif what == "another model":
        model.set_params(seed=1).fit(fastmf.testing.power_law(25, 20, 160, n_factors=2, seed=1))
        model.recommend_to_parquet(tmp_path / "out", 4)
    else:
        model.recommend(k=4).to_parquet(tmp_path / "out")

    assert not orphans.exists()
    assert sorted(os.listdir(tmp_path)) == sorted([elsewhere.name, "out"])


def test_parts_of_another_k_survive_a_call_that_fails(
    model: FactorModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = interrupt(model, tmp_path / "out", 2, monkeypatch, k=4)
    second = interrupt(model, tmp_path / "out", 2, monkeypatch, k=3)

    assert first != second
    assert sorted(os.listdir(tmp_path)) == sorted([first.name, second.name])


def test_two_calls_do_not_share_their_parts(
    model: FactorModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = interrupt(model, tmp_path / "out", 2, monkeypatch)
    before = {file.name: file.read_bytes() for file in parts.iterdir()}

    with (
        leftovers.locked(parts),
        pytest.raises(OutputError, match="another process is writing the same recommendations"),
    ):
        model.recommend_to_parquet(tmp_path / "out", 4)

    assert {file.name: file.read_bytes() for file in parts.iterdir()} == before
    model.recommend_to_parquet(tmp_path / "out", 4)


def test_a_call_that_comes_second_leaves_the_folder_of_the_first_one(model: FactorModel, tmp_path: Path) -> None:
    refused, left = [], []

    def second_call(*_: object) -> None:
        if not refused:
            with pytest.raises(OutputError, match="another process is writing the same recommendations") as error:
                model.recommend_to_parquet(tmp_path / "out", 4)
            refused.append(error)
            left.extend(os.listdir(tmp_path))

    with pytest.MonkeyPatch.context() as patch:
        is_whole = recommendations._is_whole  # asked before the first part is written
        patch.setattr(recommendations, "_is_whole", lambda file: second_call() or is_whole(file))
        model.recommend_to_parquet(tmp_path / "out", 4)

    assert len(left) == 1
    assert left[0].startswith(".out.parts-")
    assert os.listdir(tmp_path) == ["out"]


# As Spark, Hadoop and people name them.
OF_OTHERS = ["part-00000-5c1d-c000.snappy.parquet", "part-r-00000.gz.parquet", "part-one.parquet", "part-1.parquet"]


@pytest.mark.parametrize(
    "foreign", ["notes.txt", "part-00000.parquet.bak", "notes/", ".hidden", "part-00001.json", *OF_OTHERS]
)
def test_a_directory_of_parts_with_other_files_is_never_overwritten(
    foreign: str, model: FactorModel, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    model.recommend_to_parquet(out, 4, partitioned=True)
    (out / foreign).mkdir() if foreign.endswith("/") else (out / foreign).write_text("mine")
    before = sorted(out.iterdir())

    with pytest.raises(OutputExistsError) as error:
        model.recommend_to_parquet(out, 4, partitioned=True, overwrite=True)

    assert f"holds more than parts of recommendations, which alone are overwritten: {foreign}; move" in str(error.value)
    assert sorted(out.iterdir()) == before


def test_an_interruption_while_the_parts_are_put_together_names_those_that_are_left(
    model: FactorModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_parts = 0
    replace = os.replace

    def move(source: Path, target: Path) -> None:
        if ".tmp-" not in Path(source).name:
            nonlocal n_parts
            n_parts += 1
            if n_parts == 2:
                raise KeyboardInterrupt
        replace(source, target)

    model.recommend_to_parquet(tmp_path / "whole", 4, partitioned=True)
    n_files = len(os.listdir(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", move)
        with pytest.raises(KeyboardInterrupt) as interruption:
            model.recommend_to_parquet(tmp_path / "out", 4, partitioned=True)

    assert interruption.value.__notes__[0].startswith(f"{n_files - 1} finished part")
    model.recommend_to_parquet(tmp_path / "out", 4, partitioned=True)
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == {
        file.name: file.read_bytes() for file in (tmp_path / "whole").iterdir()
    }


@pytest.mark.parametrize("partitioned", [False, True])
def test_a_file_and_a_directory_do_not_replace_each_other(
    partitioned: bool, model: FactorModel, tmp_path: Path
) -> None:
    model.recommend_to_parquet(tmp_path / "out", 4, partitioned=not partitioned)

    with pytest.raises(OutputExistsError, match=r"is a (file|directory); expected the name of a (directory|file)"):
        model.recommend_to_parquet(tmp_path / "out", 4, partitioned=partitioned, overwrite=True)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_place_without_permission_or_room_is_named(
    number: int, model: FactorModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refuse)

    with pytest.raises(OutputError, match=f"cannot write {tmp_path / 'out'}: {os.strerror(number)}; "):
        model.recommend_to_parquet(tmp_path / "out", 4)

    assert os.listdir(tmp_path) == []


def test_a_disk_that_is_full_in_the_middle_of_a_part_names_the_output(
    model: FactorModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)

    with pytest.raises(OutputError, match=f"cannot write {tmp_path / 'out'}: No space left on device; make room, or"):
        model.recommend_to_parquet(tmp_path / "out", 4)

    assert os.listdir(tmp_path) == []
