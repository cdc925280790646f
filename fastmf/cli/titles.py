"""What items are called: a Parquet file with the columns item_id and title."""

from typing import Any


def read_titles(model: Any, path: str) -> dict[Any, str]:
    """Read what items of a model are called, by their ids; of several titles of an item, the last one counts.

    Raises
    ------
    DataError
        If a column is missing, or the ids are of another type than those of the model.
    """
    import numpy as np
    import pyarrow as pa

    from fastmf.reading import ids
    from fastmf.reading.columns import IDS, decode
    from fastmf.reading.parquet import open_dataset

    dataset = open_dataset(path)
    item_ids, titles = dataset.read("item_id", IDS), decode(dataset.read("title").values)
    places = ids.look_up(model.item_ids, item_ids.values, "item_id")
    is_titled = (places >= 0) & np.asarray(titles.is_valid())
    known = model.item_ids.take(pa.array(places[is_titled])).to_pylist()
    return dict(zip(known, map(str, titles.filter(pa.array(is_titled)).to_pylist()), strict=True))
