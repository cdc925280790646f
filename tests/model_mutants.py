"""A worker of `test_fuzz_models.py`: changes a model directory, uses it, and counts what happens.

Usage: ``model_mutants.py FOLDER FIRST LAST``. Mutant number n is the same in every run. The last line of the output has
the counts; every line before it names the mutant that comes next, so that a crash has a name.
"""

import json
import random
import shutil
import struct
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

import fastmf
from fastmf.errors import FastMFError, ModelError
from fastmf.keeping.manifest import MANIFEST

Mutation = Callable[[random.Random, Path], None]
# Products of such factors overflow float32; what is left of their scores depends on the order of sums.
HUGE = 1e6
INTERESTING = (0, 1, -1, 2**31 - 1, -(2**31), 2**31, 2**63 - 1, -(2**63), 19, 20, 24, 25, 160)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2.5, 1e300, -1e39, float("nan"), float("inf"), 10**400, 2**63, 24, 26),
    *("", "x", "../x", "ALS", "SGD", "\ud800", [], [0], [[]], {}, {"a": 1}, {"bytes": 3, "sha256": "0" * 64}),
)


def make_model(folder: Path, kind: str) -> None:
    ratings = fastmf.testing.power_law(25, 20, 160, n_factors=2, seed=0)
    if kind == "names":
        users = pa.array([f"Zoë {n:02}" for n in range(25)])
        ratings = fastmf.Interactions(ratings.users, ratings.items, ratings.ratings, None, users, ratings.item_ids)
    model = fastmf.SGD if kind == "state" else fastmf.ALS
    model(n_factors=3, n_epochs=2).fit(ratings).save(folder)


def flip_bits(rng: random.Random, folder: Path) -> None:
    path = any_file(rng, folder)
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 2, 8))):
        # The first bytes say what the rest is.
        place = rng.randrange(min(len(content), 200) if rng.random() < 0.5 else len(content))
        content[place] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def write_bytes(rng: random.Random, folder: Path) -> None:
    path = any_file(rng, folder)
    content = bytearray(path.read_bytes())
    place = rng.randrange(len(content))
    content[place : place + rng.choice((1, 4, 8, 64))] = rng.randbytes(rng.choice((1, 4, 8, 64)))
    path.write_bytes(content)


def set_offset(rng: random.Random, folder: Path) -> None:
    """Overwrite an aligned integer of a file of ids: an offset, a length, a count."""
    path = folder / rng.choice(("user_ids.arrow", "item_ids.arrow"))
    content = bytearray(path.read_bytes())
    size, kind = rng.choice(((4, "<i"), (8, "<q")))
    place = size * rng.randrange(len(content) // size)
    struct.pack_into(kind, content, place, rng.choice([n for n in INTERESTING if abs(n) < 2 ** (8 * size - 1)]))
    path.write_bytes(content)


def change_length(rng: random.Random, folder: Path) -> None:
    path = any_file(rng, folder)
    content = path.read_bytes()
    longer = content + rng.randbytes(rng.randrange(1, 100))
    path.write_bytes(rng.choice((content[: rng.randrange(len(content))], longer, b"", content * 2)))


def set_number(rng: random.Random, folder: Path) -> None:
    """Overwrite one number of an array with one that means trouble."""
    path = rng.choice(sorted(folder.glob("*.npy")))
    array = np.load(path)
    if array.size:
        place = rng.randrange(array.size)
        if array.dtype == np.float32:
            value = rng.choice((np.nan, np.inf, -np.inf, 3e38, -3e38, 0, 1e-40))
        else:
            value = rng.choice(INTERESTING) if rng.random() < 0.7 else rng.randrange(-2, 30)
        array.reshape(-1)[place] = np.array(value).astype(array.dtype)
    np.save(path, array)


def replace_array(rng: random.Random, folder: Path) -> None:
    """Write an array of another shape, type or order."""
    path = rng.choice(sorted(folder.glob("*.npy")))
    array = np.load(path)
    changes: list[Callable[[], Any]] = [
        lambda: array[: rng.randrange(len(array))],
        lambda: array.astype(rng.choice((np.float64, np.int64, np.int32, np.float32, np.uint32))),
        lambda: array.astype(array.dtype.newbyteorder()),
        lambda: np.asfortranarray(array),
        lambda: array[..., None],
        lambda: array.reshape(-1)[::-1].reshape(array.shape),
        lambda: np.sort(array, axis=None).reshape(array.shape),
        lambda: np.concatenate([array, array]),
        lambda: np.array(array.tolist(), object),
    ]
    np.save(path, rng.choice(changes)(), allow_pickle=True)


def replace_header(rng: random.Random, folder: Path) -> None:
    """Write a header of NumPy's format that says something else of the same bytes."""
    path = rng.choice(sorted(folder.glob("*.npy")))
    content = path.read_bytes()
    (length,) = struct.unpack("<H", content[8:10])
    shape = tuple(rng.choice(INTERESTING) for _ in range(rng.randrange(4)))
    kind = rng.choice(("<f4", "<i4", "<i8", "|O", "<f8", "<M8[ns]", "|V8", "|S4", "f"))
    header = repr({"descr": kind, "fortran_order": rng.random() < 0.2, "shape": shape})
    header = rng.choice((header, header + ", ", "(" * 90, header[:-1], "", f"{header}{header}", "[" * 3000))
    body = header.encode()[:60_000].ljust(length - 1) + b"\n"
    path.write_bytes(content[:8] + struct.pack("<H", len(body)) + body + content[10 + length :])


def replace_ids(rng: random.Random, folder: Path) -> None:
    path = folder / rng.choice(("user_ids.arrow", "item_ids.arrow"))
    n = 25 if path.name.startswith("user") else 20
    ids = pa.ipc.open_file(path).read_all()["id"].to_pylist()
    changes: list[Callable[[], Any]] = [
        lambda: pa.array(ids[::-1]),
        lambda: pa.array([ids[0], *ids[:-1]]),
        lambda: pa.array([None, *ids[1:]]),
        lambda: pa.array(ids[:-1]),
        lambda: pa.array(range(n), pa.int32()),
        lambda: pa.array(range(n), pa.float64()),
        lambda: pa.array(range(n), pa.int64()),
        lambda: pa.array([str(i) for i in ids]).dictionary_encode(),
        lambda: pa.array([[i] for i in ids]),
        lambda: pa.array(sorted(str(i) for i in ids), pa.large_string()),
        lambda: bad_strings(n, [0, *([3] * n)], b"\xff\xfe\xfd"),
    ]
    column = rng.choice(changes)()
    chunks = pa.chunked_array([column]) if rng.random() < 0.7 else pa.chunked_array([column[:7], column[7:]])
    table = pa.table({"id" if rng.random() < 0.9 else "ids": chunks})
    options = pa.ipc.IpcWriteOptions(compression=rng.choice((None, None, "zstd", "lz4")))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table)


def bad_strings(n: int, offsets: list[int], text: bytes) -> pa.Array:
    buffers = [None, pa.py_buffer(struct.pack(f"<{n + 1}i", *offsets)), pa.py_buffer(text)]
    return pa.Array.from_buffers(pa.string(), n, buffers)


def change_manifest(rng: random.Random, folder: Path) -> None:
    """Set an entry of the manifest, at any depth, to another value, or take it out."""
    content = json.loads((folder / MANIFEST).read_text())
    node, places = content, []
    while isinstance(node, (dict, list)) and node:
        places.append((node, rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))))
        node = places[-1][0][places[-1][1]]
    container, key = rng.choice(places)
    action = rng.random()
    if action < 0.2:
        del container[key]
    elif action < 0.3 and isinstance(container, dict):
        container[rng.choice(("x", "../y", "seen.npy", "recs.parquet"))] = container.pop(key)
    else:
        container[key] = rng.choice(VALUES)
    (folder / MANIFEST).write_text(json.dumps(content))


def change_text(rng: random.Random, folder: Path) -> None:
    text = (folder / MANIFEST).read_text()
    place = rng.randrange(len(text))
    letters = rng.choice(("", "9", "-", '"', "}", "[" * 100_000, "null", "NaN", "1e999", "\x00", "é"))
    (folder / MANIFEST).write_text(text[:place] + letters + text[place + rng.randrange(3) :])


def change_folder(rng: random.Random, folder: Path) -> None:
    path = any_file(rng, folder)
    other = any_file(rng, folder)
    action = rng.randrange(4)
    if action == 0:
        path.unlink()
    elif action == 1:
        path.unlink()
        path.mkdir()
    elif action == 2:
        path.write_bytes(other.read_bytes())
    else:
        content = path.read_bytes()
        path.write_bytes(other.read_bytes())
        other.write_bytes(content)


MUTATIONS: tuple[Mutation, ...] = (
    *(flip_bits, write_bytes, change_length, set_number, set_number, replace_array, replace_header),
    *(set_offset, replace_ids, change_manifest, change_manifest, change_text, change_folder),
)


def any_file(rng: random.Random, folder: Path) -> Path:
    return rng.choice(sorted(path for path in folder.iterdir() if path.is_file()))


def seal(folder: Path) -> None:
    """Let the manifest say what the files are now, as somebody does who means harm."""
    import hashlib

    try:
        content = json.loads((folder / MANIFEST).read_text())
        for name, entry in content["files"].items():
            data = (folder / name).read_bytes()
            entry |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        (folder / MANIFEST).write_text(json.dumps(content))
    except (ValueError, OSError, AttributeError, KeyError, TypeError, RecursionError):
        pass


class Answers(NamedTuple):
    ids: list[Any]
    numbers: list[Any]

    def agree_with(self, other: "Answers") -> bool:
        """Whether ids are the same, and numbers as near as float32 has them: backends sum in another order."""
        return self.ids == other.ids and all(
            a.shape == b.shape and np.allclose(a, b, rtol=1e-3, atol=1e-4)
            for a, b in zip(self.numbers, other.numbers, strict=True)
        )


def answers(model: Any) -> Answers:
    k = min(5, len(model.item_ids))
    table = model.recommend(k=k).to_arrow()
    some = model.recommend(model.user_ids[:3], k=k, exclude=None)
    item = model.item_ids[:1]
    predicted = model.predict(model.user_ids, item.take(pa.array([0] * len(model.user_ids))))
    ids = [table[name].to_pylist() for name in ("user_id", "rank", "item_id")] + [some.items.tolist()]
    if k > 1:
        ids.append(model.similar_items(item, k - 1).to_arrow().column(2).to_pylist())
        assert set(ids[-1]) <= set(model.item_ids.to_pylist())
    assert set(ids[2]) <= set(model.item_ids.to_pylist())
    return Answers(ids, [table["score"].to_numpy(), some.scores, predicted])


def outcome(folder: Path, original: Answers) -> str:
    try:
        model = fastmf.load(folder)
    except ModelError:
        return "refused at load"
    try:
        found = answers(model)
    except ModelError:
        return "refused at the first use"
    except FastMFError as error:
        return f"refused by {type(error).__name__}"
    if found.agree_with(original):
        return "the same answers"
    if any(np.abs(term).max() > HUGE for term in model.fitted.factors):
        return "huge factors, not compared"
    expected = answers(fastmf.load(folder).set_params(backend="reference"))
    if not found.agree_with(expected):
        return "wrong: not what the reference answers"
    return "another model, answered as the reference does"


def verified(folder: Path, before: dict[str, bytes]) -> str | None:
    """Say so if `verify` believes files that have changed."""
    try:
        fastmf.load(folder, verify=True)
    except FastMFError:
        return None
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    manifest = json.loads(after[MANIFEST])
    is_believed = manifest == json.loads(before[MANIFEST]) or "manifest_sha256" not in manifest  # of an earlier version
    changed = {name for name in before if after.get(name) != before[name]} - ({MANIFEST} if is_believed else set())
    return f"wrong: verify believes {changed}" if changed else None


def main(folder: Path, first: int, last: int) -> None:
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "overflow|invalid value", RuntimeWarning)  # factors may be huge
    originals = {}
    for kind in ("numbers", "names", "state"):
        make_model(folder / kind, kind)
        originals[kind] = (
            answers(fastmf.load(folder / kind)),
            {p.name: p.read_bytes() for p in (folder / kind).iterdir()},
        )
    counts: Counter[str] = Counter()
    for number in range(first, last):
        rng = random.Random(number)
        kind, mutation, is_sealed = rng.choice(list(originals)), rng.choice(MUTATIONS), rng.random() < 0.6
        print(f"mutant {number}: {mutation.__name__} of {kind}, {'sealed' if is_sealed else 'as it is'}", flush=True)
        mutant = folder / "mutant"
        shutil.copytree(folder / kind, mutant)
        mutation(rng, mutant)
        if is_sealed:
            seal(mutant)
        expected, before = originals[kind]
        counts[(None if is_sealed else verified(mutant, before)) or outcome(mutant, expected)] += 1
        shutil.rmtree(mutant)
    print(json.dumps(counts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
