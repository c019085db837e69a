"""Candidate embeddings that a candidate tower computes."""

from pathlib import Path

from shortlist.export.own.inputs import read_inputs
from shortlist.export.own.tower import SavedTower
from shortlist.export.own.vectors import VectorTable, attributes_of

__all__ = ["embed_candidates"]


def embed_candidates(
    tower: SavedTower, path: Path, *, id_column: str, title_column: str | None
) -> VectorTable:
    """Embed the rows of a file; its columns but the ids and titles become attributes.

    Args:
        tower: Candidate tower.
        path: Parquet, CSV or NPZ file with its inputs by name, and ids.
        id_column: Column of the candidate ids.
        title_column: Column of names for the report; None for `title`, if there is one.

    Raises:
        DataError: The file is missing or faulty, or the tower cannot embed its rows.
    """
    rows, table = read_inputs(path, tower.inputs, texts=[id_column], tower=tower.name_in_messages)
    return VectorTable(
        ids=table.texts(id_column),
        embeddings=tower.embed(rows),
        name=f"{tower.name_in_messages} ({path})",
        **attributes_of(table, id_column, title_column=title_column),
    )
