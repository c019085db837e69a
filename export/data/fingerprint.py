"""Hashes of ids and interactions: the same in every process, on every platform and in any order."""

import hashlib
import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from shortlist.export.data.dataset import Dataset
from shortlist.serving.repository.version import DatasetFacts

__all__ = ["Hashes", "dataset_facts", "dataset_fingerprint", "hash_ids", "hash_rows"]

Hashes = npt.NDArray[np.uint64]

_ROWS = 1_000_000  # hashed at once, 8 MB per temporary array


def hash_ids(ids: Sequence[str], *, seed: int | None = None) -> Hashes:
    """Hash distinct ids, uint64 `[num_ids]`; about a microsecond per id.

    Args:
        ids: Ids.
        seed: Seed that gives other, independent hashes.
    """
    digests = b"".join(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for text in ids
    )
    return _salted(np.frombuffer(digests, "<u8").astype(np.uint64), seed)


def hash_rows(dataset: Dataset, *, seed: int | None = None) -> Hashes:
    """Hash user id, candidate id and time (if any) of every interaction.

    Args:
        dataset: Interactions.
        seed: Seed that gives other, independent hashes.

    Returns:
        Uint64 `[num_interactions]`; exact duplicates have the same hash.
    """
    users, candidates = _mix(hash_ids(dataset.user_ids)), hash_ids(dataset.candidate_ids)
    hashes = np.empty(dataset.num_interactions, np.uint64)
    for start in range(0, len(hashes), _ROWS):
        part = slice(start, start + _ROWS)
        mixed = _mix(
            users[dataset.user_positions[part]] + candidates[dataset.candidate_positions[part]]
        )
        if dataset.timestamps is not None:
            mixed += dataset.timestamps[part].astype(np.uint64)
        hashes[part] = _salted(_mix(mixed), seed)
    return hashes


def dataset_fingerprint(dataset: Dataset) -> str:
    """Digest of interactions and catalogue ids, 32 hexadecimal digits.

    It depends neither on the order of rows and candidates nor on the name of the data. Titles,
    attributes, ratings and weights do not count.
    """
    digest = hashlib.blake2b(digest_size=16)
    for hashes in (_mix(hash_ids(dataset.candidate_ids)), hash_rows(dataset)):
        total, parity = int(np.sum(hashes)), int(np.bitwise_xor.reduce(hashes))
        digest.update(struct.pack("<QQQ", len(hashes), total, parity))
    return digest.hexdigest()


def dataset_facts(dataset: Dataset) -> DatasetFacts:
    """Return what a manifest records of the data."""
    return DatasetFacts(
        name=dataset.name,
        users=len(dataset.user_ids),
        candidates=len(dataset.candidate_ids),
        interactions=dataset.num_interactions,
        fingerprint=dataset_fingerprint(dataset),
        source=None if dataset.source is None else dataset.source.as_json(),
        skipped=dict(dataset.skipped) or None,
        newest=None if dataset.timestamps is None else int(dataset.timestamps.max()),
    )


def _salted(hashes: Hashes, seed: int | None) -> Hashes:
    return hashes if seed is None else _mix(hashes ^ _mix(np.array([seed], np.uint64)))


def _mix(values: Hashes) -> Hashes:
    """Scramble uint64 values one to one, as splitmix64 does (Steele, Lea and Flood, 2014)."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed
