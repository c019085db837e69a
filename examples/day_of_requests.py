"""Play a day of a shop with the ratings of a MovieLens release: users ask, then choose.

    python examples/day_of_requests.py cut ml-latest-small story
    python examples/day_of_requests.py play story/monday.csv --events story/events.csv

`cut` divides the release by time, since its users seldom come back the next day: `week.csv` has
the ratings before 2013, `weekend.csv` those of 2013 to 2015, `monday.csv` those of 2016, and
`tuesday.csv` those of 2017. `play` sends the requests of such a day to a server. Each user asks
before every tenth rating, with what the user rated that day as history. The ratings that follow
are written to --events as if they came in the second after the answer.
"""

import argparse
import csv
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from shortlist import GrpcClient

__all__ = ["cut", "main", "play"]

PARTS = {"week": 1990, "weekend": 2013, "monday": 2016, "tuesday": 2017}  # by first year
END = 2018
COLUMNS = ("user_id", "candidate_id", "timestamp")
STEP = 10  # ratings between two requests of a user

Day = Mapping[str, Sequence[tuple[int, str]]]  # by user: time and candidate, in order


def main() -> None:
    """Run one of the two parts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parts = parser.add_subparsers(dest="part", required=True)
    cutting = parts.add_parser("cut")
    cutting.add_argument("release", type=Path)
    cutting.add_argument("output", type=Path)
    playing = parts.add_parser("play")
    playing.add_argument("day", type=Path)
    playing.add_argument("--events", type=Path, required=True)
    playing.add_argument("--address", default="127.0.0.1:8500")
    playing.add_argument("--model", default="retrieval_ivf")
    playing.add_argument("--most", type=int, default=20, help="requests of one user")
    args = parser.parse_args()
    if args.part == "cut":
        cut(args.release, args.output)
    else:
        play(args.day, args.events, address=args.address, model=args.model, most=args.most)


def cut(release: Path, output: Path) -> None:
    """Write the parts of a release as CSV files."""
    output.mkdir(parents=True, exist_ok=True)
    starts = [datetime(year, 1, 1, tzinfo=UTC).timestamp() for year in (*PARTS.values(), END)]
    with (release / "ratings.csv").open(newline="") as stream:
        ratings = [
            (row["userId"], row["movieId"], int(row["timestamp"])) for row in csv.DictReader(stream)
        ]
    for part, start, stop in zip(PARTS, starts, starts[1:], strict=False):
        rows = [rating for rating in ratings if start <= rating[2] < stop]
        with (output / f"{part}.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([COLUMNS, *rows])
        print(f"{part}.csv: {len(rows):,} ratings of {len({row[0] for row in rows})} users")


def play(path: Path, events: Path, *, address: str, model: str, most: int) -> None:
    """Send the requests of a day, and write what users chose after each of them."""
    day, lists, choices = read_day(path), 0, 0
    new = not events.exists()
    with (
        GrpcClient(address, model=model) as client,
        events.open("a", newline="") as stream,
    ):
        write = csv.writer(stream).writerows
        if new:
            write([COLUMNS])
        for start in range(0, most * STEP, STEP):
            asking = [user for user, chosen in day.items() if len(chosen) > start]
            for user in asking:
                now = day[user][start][0]
                client.retrieve(
                    [user],
                    history=[[candidate for _, candidate in day[user][:start]]],
                    history_ages=[[now - then for then, _ in day[user][:start]]],
                    exclude_seen=True,
                    label="stable",
                )
            moment = int(time.time()) + 1
            chosen = [
                (user, candidate, moment)
                for user in asking
                for _, candidate in day[user][start : start + STEP]
            ]
            write(chosen)
            lists, choices = lists + len(asking), choices + len(chosen)
            if asking:  # events have whole seconds: the next round begins after this one's
                time.sleep(max(moment - time.time(), 0.0))
    print(f"{path.name}: {lists:,} requests of {len(day)} users, {choices:,} choices")


def read_day(path: Path) -> Day:
    """Return the ratings of each user in the order of time."""
    day = defaultdict(list)
    with path.open(newline="") as stream:
        for row in csv.DictReader(stream):
            day[row["user_id"]].append((int(row["timestamp"]), row["candidate_id"]))
    return {user: sorted(ratings) for user, ratings in day.items()}


if __name__ == "__main__":
    main()
