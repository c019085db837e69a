"""Words of texts, such as titles and descriptions, as features of candidates."""

import dataclasses

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shortlist.export.data.config import DataConfig, DataError
from shortlist.export.data.dataset import Attribute, Dataset
from shortlist.export.data.reading.roles import find_column

__all__ = ["with_words"]

_MOST_WORDS = 10_000  # per text; the most frequent ones
_FEWEST = 2  # candidates: a word of one alone teaches nothing about others
_LARGEST_SHARE = 0.2  # of the candidates: words such as `the` tell nothing
_FEW = 20  # candidates, of which any share is no more than chance
_NO_WORD = r"[^\p{L}\p{N}]+"


def with_words(dataset: Dataset, config: DataConfig) -> Dataset:
    """Return the dataset with the words of its candidates' texts in place of the texts.

    Args:
        dataset: Dataset, whose attributes include the texts.
        config: Names of the texts; the title is the title of `dataset`.

    Raises:
        DataError: There is no such text.
    """
    attributes, words = dict(dataset.attributes), {}
    for name in config.text_columns:
        own = attributes.pop(name, None)
        if own is not None and own.values is not None:
            texts = [" ".join(values) for values in own.values]
        elif own is None and (name == config.title_column or find_column("titles", [name], None)):
            texts = list(dataset.titles)
        else:
            where = config.candidates_file or dataset.name
            raise DataError(
                f"{where} has no text {name!r} of candidates, only "
                f"{', '.join(['title', *dataset.attributes])}; name one of these with --text-column"
            )
        words[name] = Attribute(values=words_of(texts))
    return dataclasses.replace(dataset, attributes=attributes, words=words) if words else dataset


def words_of(texts: list[str]) -> tuple[tuple[str, ...], ...]:
    """Return the words of each text in lower case, each once; without rare and usual words."""
    lists = pc.split_pattern_regex(pc.utf8_lower(pa.array(texts, pa.string())), _NO_WORD)
    rows = pc.list_parent_indices(lists).to_numpy()
    encoded = pc.list_flatten(lists).dictionary_encode()
    distinct = encoded.dictionary.to_pylist()
    cells = np.unique(rows.astype(np.int64) * len(distinct) + encoded.indices.to_numpy())
    rows, codes = np.divmod(cells, max(len(distinct), 1))
    useful = _useful(distinct, np.bincount(codes, minlength=len(distinct)), len(texts))
    kept = np.isin(codes, useful)
    rows, codes = rows[kept], codes[kept]
    ends = np.searchsorted(rows, np.arange(len(texts) + 1))
    return tuple(
        tuple(distinct[code] for code in codes[start:stop].tolist())
        for start, stop in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
    )


def _useful(
    distinct: list[str], counts: npt.NDArray[np.int64], num_texts: int
) -> npt.NDArray[np.int64]:
    """Return the words that tell something, the most frequent ones first."""
    most = max(_LARGEST_SHARE * num_texts, _FEW)
    fits = (
        (counts >= _FEWEST)
        & (counts <= most)
        & np.asarray([bool(word) for word in distinct], np.bool_)
    )
    words = np.flatnonzero(fits)
    return words[np.argsort(-counts[words], kind="stable")][:_MOST_WORDS]
