"""Inspects data: reads it as an export does, and says what an export would do with it."""

import dataclasses
from dataclasses import dataclass

from shortlist.export.config import Protocol, SplitMethod, TrainConfig
from shortlist.export.data.columns import FileColumns, describe_columns
from shortlist.export.data.config import DataConfig, DataError
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.loading import load
from shortlist.export.data.reading.faults import Fault, FaultyRowsError
from shortlist.export.evaluation.held_out import HeldOut
from shortlist.export.inspection.advice import Advice, data_advice
from shortlist.export.inspection.facts import DataProfile, profile_of
from shortlist.export.preflight import check_split

__all__ = ["Inspection", "SplitFacts", "inspect_data"]


@dataclass(frozen=True, kw_only=True)
class SplitFacts:
    """How an export would split the data.

    Attributes:
        method: Method.
        reason: What in the data led to the method; empty if it was configured.
        training: Number of interactions to train on.
        validation: Number of interactions that decide when training stops.
        held_out: The held-out part.
        protocol: Protocol of the headline metric.
    """

    method: SplitMethod
    reason: str
    training: int
    validation: int
    held_out: HeldOut
    protocol: Protocol

    @property
    def parts(self) -> str:
        """Sizes of the parts and their use, in words."""
        return (
            f"{self.training:,} interactions to train on, {self.validation:,} to decide when to "
            f"stop, {self.held_out.interactions:,} held out"
        )


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """Everything that is known about data without training.

    Attributes:
        source: Configuration that it was read with.
        files: Columns of the files; empty for data whose columns are known.
        notes: Lines about how the data was read.
        problem: Message with which an export refuses the data; None if it does not.
        faults: Faulty rows; empty if none stop an export.
        rows: Number of rows if there are such faults, else 0.
        facts: Numbers about the data without faulty rows; None if it cannot be read.
        split: Split of an export; None if it refuses the data.
        advice: Options that are worth a look, the most important first.
    """

    source: DataConfig
    files: tuple[FileColumns, ...] = ()
    notes: tuple[str, ...] = ()
    problem: str | None = None
    faults: tuple[Fault, ...] = ()
    rows: int = 0
    facts: DataProfile | None = None
    split: SplitFacts | None = None
    advice: tuple[Advice, ...] = ()


def inspect_data(config: DataConfig, train: TrainConfig | None = None) -> Inspection:
    """Read data as an export does, and return what is to be known about it.

    Faulty rows and the like do not raise: they are in the result.

    Args:
        config: Data to read.
        train: Training that an export would do; None for the default one.
    """
    train = train or TrainConfig()
    known = Inspection(source=config)
    try:
        known = dataclasses.replace(known, files=describe_columns(config))
        known = dataclasses.replace(known, notes=_notes(known.files))
        dataset, known = _load(config, known)
    except DataError as exc:
        return _refused(known, exc)
    known = dataclasses.replace(known, notes=dataset.notes, facts=profile_of(dataset))
    try:
        split = _split(dataset, train)
    except ValueError as exc:
        return dataclasses.replace(known, problem=known.problem or str(exc))
    assert known.facts is not None
    advice = data_advice(known.files, known.facts, split.held_out, train, config)
    return dataclasses.replace(known, split=split, advice=advice)


def _load(config: DataConfig, known: Inspection) -> tuple[Dataset, Inspection]:
    """Load the data; without the faulty rows if an export refuses it because of them."""
    try:
        return load(config), known
    except FaultyRowsError as exc:
        try:
            dataset = load(dataclasses.replace(config, skip_bad_rows=1.0))
        except DataError as inner:  # of all rows, or of another file
            raise exc from inner
        return dataset, _refused(known, exc)


def _refused(known: Inspection, exc: DataError) -> Inspection:
    faults, rows = (exc.faults, exc.total) if isinstance(exc, FaultyRowsError) else ((), 0)
    return dataclasses.replace(known, problem=str(exc), faults=faults, rows=rows)


def _notes(files: tuple[FileColumns, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(note for file in files for note in file.notes))


def _split(dataset: Dataset, train: TrainConfig) -> SplitFacts:
    split, held_out = check_split(dataset, train)
    return SplitFacts(
        method=split.method,
        reason=split.reason,
        training=len(split.training),
        validation=len(split.validation),
        held_out=held_out,
        protocol=train.protocol,
    )
