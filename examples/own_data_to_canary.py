"""Your own events and catalogue, as files: version 1 live, version 2 as a canary, then live.

pip install 'shortlist[all]'
python examples/own_data_to_canary.py MONDAY.csv TUESDAY.csv PRODUCTS.csv FOLDER [OPTIONS OF EXPORT]

The same steps one by one, with their output: docs/tutorials/csv_to_canary.md.
"""

import subprocess
import sys
from collections import Counter
from pathlib import Path

from shortlist import GrpcClient, Split
from shortlist.serving.servers.options import claim_port

__all__ = ["main"]

SERVABLE = "shop_ivf"
SHARES = Split({"stable": 0.8, "canary": 0.2})


def shortlist(*arguments: str) -> None:
    """Run a command; it has said what is wrong if it fails."""
    subprocess.run([sys.executable, "-m", "shortlist", *arguments], check=True)


def main(monday: str, tuesday: str, products: str, folder: str, *options: str) -> None:
    """Train on one day, serve, train on two days, and roll the second version out."""
    repository = ("--repository", str(Path(folder) / "models"))
    what = ("--candidates", products, "--model", "shop", "--index", "ivf")
    export = ("export", *what, *repository, *options)
    shortlist(*export, "--data", monday)
    ports = claim_port(0, option="--port"), claim_port(0, option="--rest-port")
    address = f"127.0.0.1:{ports[0]}"
    rollout = (*repository, "--servable", SERVABLE, "--address", address)
    flags = ["--port", str(ports[0]), "--rest-port", str(ports[1])]
    with (
        subprocess.Popen(
            [sys.executable, "-m", "shortlist", "serve", *repository, *flags]
        ) as server,
        GrpcClient(address, model=SERVABLE) as client,
    ):
        try:
            client.wait_until_available(timeout=120)
            shortlist("promote", "1", *rollout)
            # The gates compare it with version 1; none of it is served before the canary.
            shortlist(*export, "--data", monday, "--data", tuesday)
            shortlist("canary", "2", *rollout)
            show(client, "canary")
            shortlist("promote", *rollout)
            show(client, "promoted")
        finally:
            server.terminate()


def show(client: GrpcClient, state: str) -> None:
    """Ask for a hundred customers, as the application does, and count who answered."""
    customers = [f"c{number}" for number in range(100)]
    answers = client.retrieve(customers, k=5, label=SHARES)
    counts = Counter(f"version {answer.version}" for answer in answers)
    print(f"{state}: {', '.join(f'{counts[name]} by {name}' for name in sorted(counts))}")


if __name__ == "__main__":
    main(*sys.argv[1:])
