"""The figures, on logs whose figures can be counted by hand."""

import logging
from pathlib import Path

import numpy as np
import pytest

from shortlist.clients.request_log.records import SHADOW
from shortlist.clients.request_log.user_ids import hash_user_id
from shortlist.export.data.config import DataConfig, DataError
from shortlist.export.evaluation.reference import buckets
from shortlist.export.monitor.figures import EXPORT, FIRST, Figures
from shortlist.export.monitor.measure import Monitoring, measure
from shortlist.export.monitor.settings import MonitorSettings
from shortlist.serving.repository.probe import write_corpus
from shortlist.serving.repository.version import DriftReference, Manifest, write_manifest
from tests.unit.export.monitor.logs import HOUR, START, Shown, write_events, write_log


def measured(folder: Path, *, now: float = START + 100 * HOUR, **settings: object) -> Monitoring:
    events = folder / "events.csv"
    values = {
        "logs": (str(folder / "logs"),),
        "interactions": DataConfig(source=str(events)) if events.exists() else None,
        "repository": folder / "models",
        "window": 100.0,
        **settings,
    }
    return measure(MonitorSettings(**values), now=now)  # type: ignore[arg-type]


def only(monitoring: Monitoring) -> Figures:
    (served,) = monitoring.served
    return served.figures


def test_an_interaction_belongs_to_the_latest_list_before_it(tmp_path: Path) -> None:
    """So it counts once, and for the version whose list the user saw last."""
    write_log(
        tmp_path / "logs",
        [
            Shown(time=START + 0.25, ids=["a", "b"], version=1),
            Shown(time=START + 50, ids=["c", "d"], version=2),
            Shown(time=START + 50, user="u2", ids=["c"], version=2),
        ],
    )
    write_events(
        tmp_path / "events.csv",
        [
            ("u1", "a", START),  # before the first list
            ("u1", "b", START + 40),
            ("u1", "a", START + 60),  # of the older list only
            ("u1", "d", START + 150),
            ("u1", "c", START + 151),  # after the window
            ("u3", "a", START + 1),  # without a list
        ],
    )
    first, second = measured(tmp_path).served
    assert (first.version, first.figures.interactions, first.figures.hit_rate) == (1, 1, 1.0)
    assert (second.version, second.figures.interactions, second.figures.hit_rate) == (2, 2, 0.5)
    assert first.figures.click_rate == 1 / 2
    assert second.figures.click_rate == 1 / 3
    assert (second.figures.lists, second.figures.users, second.figures.impressions) == (2, 2, 3)
    assert first.figures.interval is None  # of one user


def test_hit_rate_looks_at_the_top_k_and_click_rate_at_the_whole_list(tmp_path: Path) -> None:
    write_log(tmp_path / "logs", [Shown(time=START, ids=list("abcd"))])
    write_events(
        tmp_path / "events.csv",
        [("u1", "b", START + 1), ("u1", "d", START + 2), ("u1", "d", START + 3)],
    )
    figures = only(measured(tmp_path, k=2))
    assert figures.hit_rate == pytest.approx(1 / 3)
    assert figures.click_rate == pytest.approx(2 / 4)  # the candidate chosen twice counts once


def test_lists_whose_window_has_not_passed_do_not_lower_the_click_rate(tmp_path: Path) -> None:
    shown = [Shown(time=START), Shown(time=START + 150)]
    write_log(tmp_path / "logs", shown)
    write_events(tmp_path / "events.csv", [("u1", "a", START + 1), ("u1", "a", START + 151)])
    assert only(measured(tmp_path, now=START + 250)).click_rate == 2 / 4
    young = only(measured(tmp_path, now=START + 249))
    assert (young.click_rate, young.hit_rate) == (1 / 2, 1.0)
    assert only(measured(tmp_path, now=START + 99)).click_rate is None


def test_lists_of_nobody_do_not_lower_the_click_rate(tmp_path: Path) -> None:
    write_log(tmp_path / "logs", [Shown(time=START), Shown(time=START, user="", rate=0.5)])
    write_events(tmp_path / "events.csv", [("u1", "a", START + 1)])
    monitoring = measured(tmp_path)
    assert (only(monitoring).lists, only(monitoring).click_rate) == (2, 1 / 2)
    assert monitoring.notes[1] == (
        "lists of logs that hold a share of the requests: 1, of about 2; numbers count those in "
        "the log, rates and shares weigh them by its sampling rate"
    )


def test_rates_weigh_lists_by_the_sampling_rate_of_their_log(tmp_path: Path) -> None:
    """One of four requests was logged in the second half, so its list counts four times."""
    shown = [
        Shown(time=START, ids=["a", "b"]),
        Shown(time=START, user="u2", ids=[], known=False, rate=0.25),
        Shown(time=START + 1, user="u3", ids=["c", "d"], rate=0.25, history=["x", "y"]),
    ]
    write_log(tmp_path / "logs", shown)
    write_events(tmp_path / "events.csv", [("u1", "z", START + 2), ("u3", "c", START + 2)])
    figures = only(measured(tmp_path))
    assert (figures.lists, figures.interactions) == (3, 2)
    assert figures.hit_rate == pytest.approx(4 / 5)
    assert figures.click_rate == pytest.approx(4 / 10)
    assert figures.unknown_users == pytest.approx(4 / 9)
    assert figures.empty == pytest.approx(4 / 9)


def test_an_interval_resamples_users(tmp_path: Path) -> None:
    users = [f"u{number}" for number in range(40)]
    write_log(tmp_path / "logs", [Shown(time=START, user=user) for user in users])
    write_events(
        tmp_path / "events.csv",
        [(user, "a" if at < 10 else "z", START + 1) for at, user in enumerate(users)],
    )
    figures = only(measured(tmp_path))
    assert figures.hit_rate == 0.25
    assert figures.interval is not None
    assert 0.1 < figures.interval.low < 0.2 < 0.3 < figures.interval.high < 0.45


def test_unknown_users_and_events_are_shares_of_what_the_answers_tell(tmp_path: Path) -> None:
    write_log(
        tmp_path / "logs",
        [
            Shown(time=START, history=["x", "y", "z"], unknown_events=2),
            Shown(time=START, history=["x"], known=False),
            Shown(time=START, known=False),
            Shown(time=START, ids=[]),
            Shown(time=START, user="", known=False),  # without an id: neither known nor unknown
        ],
    )
    monitoring = measured(tmp_path)
    figures = only(monitoring)
    assert figures.unknown_users == 2 / 4
    assert figures.unknown_history == 2 / 4
    assert figures.empty == 1 / 5
    assert (figures.interactions, figures.hit_rate, figures.click_rate) == (None, None, None)
    assert {name: part.lists for name, part in monitoring.served[0].segments.items()} == {
        "known": 2,
        "unknown": 2,
        "no user id": 1,
    }


def test_age_and_coverage_come_from_the_repository(tmp_path: Path) -> None:
    version = tmp_path / "models" / "retrieval_ivf" / "1"
    version.mkdir(parents=True)
    (version / "saved_model.pb").touch()
    write_manifest(version, Manifest(created="2023-11-14T22:00:00+00:00"))
    write_corpus(version, list("abcdefgh"))
    write_log(tmp_path / "logs", [Shown(time=START + 60), Shown(time=START, version=2)])
    first, second = (monitoring := measured(tmp_path)).served
    assert first.age == 60  # START is 22:00
    assert first.figures.coverage == 2 / 8
    assert (second.age, second.figures.coverage) == (None, None)
    (note,) = monitoring.notes
    assert note.startswith(f"not in the repository {tmp_path / 'models'}, so that age and ")
    assert note.endswith(": retrieval_ivf/2")


def test_segments_come_from_a_column_of_users(tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("user_id,country,age\nu1,fr,30\nu2,de,40\n")
    write_log(tmp_path / "logs", [Shown(time=START, user=user) for user in ("u1", "u2", "u9")])
    write_events(tmp_path / "events.csv", [("u2", "a", START + 1)])
    users = DataConfig(users_file=str(tmp_path / "users.csv"))
    found = measured(tmp_path, users=users, segment_column="country").served[0].segments
    assert {name: (part.lists, part.hit_rate) for name, part in found.items()} == {
        "fr": (1, None),
        "de": (1, 1.0),
        "(other)": (1, None),
    }
    numbers = measured(tmp_path, users=users, segment_column="age").served[0].segments
    assert numbers.keys() == {"30", "40", "(other)"}
    with pytest.raises(DataError, match="no column 'land' with attributes, only country, age"):
        measured(tmp_path, users=users, segment_column="land")


def test_hashed_user_ids_are_joined_with_the_key(tmp_path: Path) -> None:
    key = b"0123456789abcdef"
    write_log(tmp_path / "logs", [Shown(time=START, user=hash_user_id("u1", key))])
    write_events(tmp_path / "events.csv", [("u1", "a", START + 1)])
    (tmp_path / "users.csv").write_text("user_id,country\nu1,fr\n")
    users = DataConfig(users_file=str(tmp_path / "users.csv"))
    monitoring = measured(tmp_path, key=key, users=users, segment_column="country")
    assert only(monitoring).hit_rate == 1.0
    assert monitoring.served[0].segments.keys() == {"fr"}
    without = measured(tmp_path)
    assert only(without).hit_rate is None
    assert without.notes[0].startswith("none of the 1 interactions follows a list of its user")


def test_other_records_are_left_out_and_counted(tmp_path: Path) -> None:
    from shortlist.clients.tensors import to_tensor_proto
    from shortlist.clients.wire import messages

    other = messages.PredictionLog.FromString(Shown(time=START).record())
    other.predict_log.response.ClearField("outputs")
    other.predict_log.response.outputs["embedding"].CopyFrom(to_tensor_proto([[1.0]]))
    other.log_metadata.model_spec.signature_name = "embed"
    broken = messages.PredictionLog.FromString(Shown(time=START).record())
    broken.predict_log.response.outputs["scores"].CopyFrom(to_tensor_proto([[1.0]]))

    class Raw:
        def __init__(self, log: messages.PredictionLog) -> None:
            self.record = log.SerializeToString

    shown = [
        Shown(time=START),
        Shown(time=START, user=""),
        Shown(time=START, model="movies"),
        Raw(other),
        Raw(broken),
    ]
    write_log(tmp_path / "logs", shown)  # type: ignore[arg-type]
    monitoring = measured(tmp_path, models=frozenset({"retrieval_ivf"}))
    assert only(monitoring).lists == 2
    assert only(monitoring).users == 1
    assert list(monitoring.notes[:3]) == [
        "left out, as they are not retrievals: 1 embed, 1 unreadable",
        "left out, as --model does not name them: 1 movies",
        "lists without a user id, which no interaction can follow: 1",
    ]


def test_copies_for_another_label_are_left_out_as_nobody_saw_them(tmp_path: Path) -> None:
    shadow = Shown(time=START + 1, ids=["z"], label="canary", origin=SHADOW)
    write_log(tmp_path / "logs", [Shown(time=START), shadow])
    write_events(tmp_path / "events.csv", [("u1", "a", START + 2)])
    monitoring = measured(tmp_path)
    assert only(monitoring).hit_rate == 1.0
    assert monitoring.notes[0] == "left out: 1 shadow copies, whose answers no caller got"


def test_the_last_part_of_a_log_can_be_read_alone(tmp_path: Path) -> None:
    write_log(tmp_path / "logs", [Shown(time=START), Shown(time=START + HOUR)])
    monitoring = measured(tmp_path, now=START + HOUR + 10, last=60.0)
    assert (only(monitoring).lists, monitoring.newest) == (1, START + HOUR)
    assert measured(tmp_path, now=START + 9 * HOUR, last=60.0).served == []


def test_drift_is_measured_against_a_reference_or_the_first_lists(tmp_path: Path) -> None:
    def lists(offset: float, scale: int) -> list[Shown]:
        return [
            Shown(time=START + offset + at, score=scale + at % 10, history=["x"] * (at % 7))
            for at in range(250)
        ]

    write_log(tmp_path / "logs", [*lists(0, 0), *lists(1000, 100)])
    write_log(tmp_path / "same", lists(0, 100))
    (drifted,) = measured(tmp_path).served
    assert drifted.drift.scores is not None
    assert drifted.drift.scores > 3
    assert drifted.drift.histories is not None
    assert drifted.drift.histories < 0.01
    reference = measured(tmp_path, reference=(str(tmp_path / "same"),)).served[0].drift.scores
    assert reference is not None
    assert 0.25 < reference < drifted.drift.scores  # half of the lists are as in the reference


def test_drift_is_measured_from_the_held_out_queries_of_the_export(tmp_path: Path) -> None:
    version = tmp_path / "models" / "retrieval_ivf" / "1"
    version.mkdir(parents=True)
    (version / "saved_model.pb").touch()
    exported = DriftReference(
        scores=buckets(np.arange(1000) % 10 + 100.0), histories=None, unknown_users=0.1
    )
    write_manifest(version, Manifest(reference=exported))
    shown = [
        Shown(time=START + at, score=100 + at % 10, history=["x"] * (at % 7), version=number)
        for number in (1, 2)
        for at in range(400)
    ]
    write_log(tmp_path / "logs", shown)
    monitoring = measured(tmp_path)
    first, second = (each.drift for each in monitoring.served)
    assert first.scores is not None
    assert first.scores < 0.01
    assert (first.scores_from, first.histories_from, first.unknown_users) == (EXPORT, FIRST, 0.1)
    assert (second.scores_from, second.unknown_users) == (FIRST, None)
    of_first = "is measured from the first lists, without a reference in a manifest"
    assert monitoring.notes[1:] == [
        "drift of scores is measured from the held-out queries of the export: retrieval_ivf/1",
        f"drift of histories {of_first}: retrieval_ivf/1, retrieval_ivf/2",
        f"drift of scores {of_first}: retrieval_ivf/2",
    ]


def test_a_reference_without_a_version_is_named(tmp_path: Path) -> None:
    """Its first lists are not taken instead: the caller asked for a comparison with others."""
    lists = [Shown(time=START + at, version=2) for at in range(500)]
    write_log(tmp_path / "logs", lists)
    write_log(tmp_path / "same", [Shown(time=START)])
    monitoring = measured(tmp_path, reference=(str(tmp_path / "same"),))
    drift = monitoring.served[0].drift
    assert (drift.scores, drift.scores_from) == (None, None)
    assert (
        "no drift of scores, as --reference has no lists of the version: retrieval_ivf/2"
        in monitoring.notes
    )


def test_periods_are_hours_or_days(tmp_path: Path) -> None:
    write_log(tmp_path / "logs", [Shown(time=START + hour * HOUR) for hour in (0, 2, 2)])
    write_events(tmp_path / "events.csv", [("u1", "z", START + 1), ("u1", "a", START + 7201)])
    periods = measured(tmp_path).served[0].periods
    assert [(each.start, each.lists, each.hit_rate) for each in periods] == [
        (START, 1, 0.0),
        (START + 2 * HOUR, 2, 1.0),
    ]
    write_log(tmp_path / "logs", [Shown(time=START + 80 * HOUR)], name="later")
    starts = [each.start for each in measured(tmp_path).served[0].periods]
    assert all(start % (24 * HOUR) == 0 for start in starts)
    assert len(starts) == 3


def test_interactions_without_times_are_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    write_log(tmp_path / "logs", [Shown(time=START)])
    (tmp_path / "events.csv").write_text("user_id,candidate_id\nu1,a\n")
    with pytest.raises(DataError, match="has no times"):
        measured(tmp_path)
