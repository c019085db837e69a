"""`shortlist vectors`."""

import argparse
import shlex

from shortlist.clients.cli.output import write, write_json
from shortlist.clients.contract import CANDIDATE_ID, USER_ID
from shortlist.export.cli.console import command_name
from shortlist.serving.repository.reference import find_version

__all__ = ["vectors"]


def vectors(args: argparse.Namespace) -> int:
    """Write the vectors of a version to files."""
    found = find_version(args.version, root=args.repository)
    # Imports TensorFlow, which takes seconds.
    from shortlist.export.own.published import check_vector_file, read_published, write_vectors

    files = [file for file in (args.output, args.users) if file is not None]
    for file in files:
        check_vector_file(file)
    published = read_published(found.path)
    candidates = published.candidates
    users = None if args.users is None else published.users()
    write_vectors(args.output, candidates, id_column=CANDIDATE_ID)
    if users is not None:
        write_vectors(args.users, users, id_column=USER_ID)
    if args.json:
        write_json(
            {
                "version": str(found),
                "files": [str(file) for file in files],
                "candidates": len(candidates.ids),
                "users": None if users is None else len(users.ids),
                "dimension": candidates.dimension,
                "similarity": published.similarity,
                "attributes": list(candidates.attributes),
            }
        )
        return 0
    line = f"{args.output}: {len(candidates.ids):,} candidates of {candidates.dimension} dimensions"
    if candidates.attributes:
        line += f", attributes {', '.join(candidates.attributes)}"
    write(line)
    if users is not None:
        write(f"{args.users}: {len(users.ids):,} users")
    write(f"similarity: {published.similarity}")
    if users is not None:
        tower, corpus = shlex.quote(str(args.users)), shlex.quote(str(args.output))
        write(
            f"index them with: {command_name()} index --query-tower {tower} --candidates {corpus} "
            f"--similarity {published.similarity}"
        )
    return 0
