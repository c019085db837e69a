"""Names and defaults that the exporter, the servers and the clients share.

The only place for signatures, tensors, files and defaults that cross a package boundary.
"""

import re
from typing import Final

__all__ = [
    "CANDIDATE_ID",
    "CANDIDATE_IDS",
    "CATALOGUE_FILE",
    "CORPUS_FILE",
    "DEFAULT_GRPC_ADDRESS",
    "DEFAULT_GRPC_PORT",
    "DEFAULT_HOST",
    "DEFAULT_INDEX",
    "DEFAULT_K",
    "DEFAULT_MODEL",
    "DEFAULT_REST_ADDRESS",
    "DEFAULT_REST_PORT",
    "DEFAULT_SERVABLE",
    "DEFAULT_TIMEOUT",
    "DEFAULT_TOP_K",
    "DEFAULT_UI_PORT",
    "DEFAULT_WAIT_TIMEOUT",
    "EMBED",
    "EMBED_BY_QUERY",
    "EXCLUDE",
    "EXCLUDE_HISTORY",
    "EXCLUDE_SEEN",
    "FEATURES",
    "FILTER_ALL",
    "FILTER_ANY",
    "FILTER_MAX",
    "FILTER_MIN",
    "GOLDEN_FILE",
    "HISTORY",
    "HISTORY_AGE",
    "HISTORY_WEIGHT",
    "INDEXES",
    "KNOWN_CANDIDATE",
    "KNOWN_FEATURES",
    "KNOWN_HISTORY",
    "KNOWN_USER",
    "MANIFEST_FILE",
    "MAX_HISTORY_AGE",
    "MAX_HISTORY_WEIGHT",
    "MIN_HISTORY_WEIGHT",
    "PADDING_CANDIDATE_ID",
    "PADDING_SCORE",
    "PROBE_FILE",
    "QUERY_EMBEDDING",
    "RATE",
    "RATING",
    "REPORT_FILE",
    "RETRIEVE",
    "RETRIEVE_BY_EMBEDDING",
    "RETRIEVE_BY_QUERY",
    "SCORES",
    "SERVABLE_VERSION",
    "SERVING_DEFAULT",
    "SIMILAR",
    "TOWERS_FILE",
    "TRAINING_FOLDER",
    "UNKNOWN_AGE",
    "UNLOGGED",
    "USERS_FILE",
    "USER_ID",
    "WARMUP_FILE",
    "K",
    "parse_shard",
    "servable_name",
    "shard_name",
]

# --- signatures ---------------------------------------------------------------
SERVING_DEFAULT: Final = "serving_default"  # user_id -> candidates; fixed K; may be batched
RETRIEVE: Final = "retrieve"  # the same with k, exclusions and filters
RETRIEVE_BY_EMBEDDING: Final = "retrieve_by_embedding"  # query_embedding -> candidates
RETRIEVE_BY_QUERY: Final = "retrieve_by_query"  # RETRIEVE with history and features
EMBED: Final = "embed"  # user_id -> query_embedding
EMBED_BY_QUERY: Final = "embed_by_query"  # EMBED with history and features
SIMILAR: Final = "similar"  # candidate_id -> candidates
RATE: Final = "rate"  # user_id, candidate_id -> rating

# --- inputs -------------------------------------------------------------------
USER_ID: Final = "user_id"  # string [batch]; "" for no user
CANDIDATE_ID: Final = "candidate_id"  # string [batch]
QUERY_EMBEDDING: Final = "query_embedding"  # float32 [batch, d]; also the output of EMBED
# Rows of candidate ids, oldest first, padded at their end with PADDING_CANDIDATE_ID.
HISTORY: Final = "history"  # string [batch, h]
HISTORY_AGE: Final = "history_age"  # float32 [batch, h], seconds; [batch, 0] if all are unknown
HISTORY_WEIGHT: Final = "history_weight"  # float32 [batch, h]; [batch, 0] if all are 1
FEATURES: Final = "features"  # string [batch, f] of "name=value", padded with ""
K: Final = "k"  # int32 scalar
EXCLUDE: Final = "exclude"  # string [batch, n], padded with ""
EXCLUDE_HISTORY: Final = "exclude_history"  # bool scalar
EXCLUDE_SEEN: Final = "exclude_seen"  # bool scalar
FILTER_ANY: Final = "filter_any"  # string [n] of "attribute=value"; at least one must hold
FILTER_ALL: Final = "filter_all"  # string [n] of "attribute=value"; every one must hold
FILTER_MIN: Final = "filter_min"  # string [n] of "attribute=number"; inclusive lower bounds
FILTER_MAX: Final = "filter_max"  # string [n] of "attribute=number"; inclusive upper bounds

# --- outputs ------------------------------------------------------------------
CANDIDATE_IDS: Final = "candidate_ids"  # string [batch, k], best first
SCORES: Final = "scores"  # float32 [batch, k], best first
KNOWN_USER: Final = "known_user"  # bool [batch]
KNOWN_CANDIDATE: Final = "known_candidate"  # bool [batch]
KNOWN_HISTORY: Final = "known_history"  # int32 [batch], events whose candidate is known
KNOWN_FEATURES: Final = "known_features"  # int32 [batch], features with a known name and value
SERVABLE_VERSION: Final = "servable_version"  # int64 [batch]
RATING: Final = "rating"  # float32 [batch]

UNKNOWN_AGE: Final = -1.0  # also where a history is padded
MAX_HISTORY_AGE: Final = 1e10  # seconds; more is a time stamp in milliseconds
MIN_HISTORY_WEIGHT: Final = 1e-6  # or 0 where a history is padded
MAX_HISTORY_WEIGHT: Final = 1e6  # sums of squares fit float32

# A row with fewer than k answers is padded at its end with these; clients drop them.
PADDING_CANDIDATE_ID: Final = ""
PADDING_SCORE: Final = float("-inf")

# --- servables ----------------------------------------------------------------
INDEXES: Final = ("brute_force", "scann", "ivf")
DEFAULT_MODEL: Final = "retrieval"
DEFAULT_INDEX: Final = "brute_force"


def servable_name(model: str, index: str) -> str:
    """Return the name of the servable of `model` with `index`: `<model>_<index>`."""
    return f"{model}_{index}"


_SHARD: Final = re.compile(r"(.+)_(0|[1-9]\d*)of([1-9]\d*)", re.DOTALL)


def shard_name(servable: str, number: int, count: int) -> str:
    """Return the name of a shard of a servable: `<servable>_<number>of<count>`, from 0."""
    return f"{servable}_{number}of{count}"


def parse_shard(name: str) -> tuple[str, int, int] | None:
    """Return servable, number and count of the shard with a name; `None` if it names none."""
    match = _SHARD.fullmatch(name)
    if match is None or int(match[2]) >= int(match[3]):
        return None
    return match[1], int(match[2]), int(match[3])


# gRPC metadata of requests that are not users', such as the checks of a rollout: the embedded
# server leaves them out of its request log.
UNLOGGED: Final = "shortlist-unlogged"

# --- files inside a version's folder -------------------------------------------
# The server ignores files under assets.extra/, except the warm-up records.
WARMUP_FILE: Final = "assets.extra/tf_serving_warmup_requests"
MANIFEST_FILE: Final = "assets.extra/shortlist_manifest.json"
GOLDEN_FILE: Final = "assets.extra/shortlist_golden.json"  # known queries and their answers
PROBE_FILE: Final = "assets.extra/shortlist_probe.json"  # sampled users and their best candidates
REPORT_FILE: Final = "assets.extra/report.html"  # report for people on the model's quality
CORPUS_FILE: Final = "assets.extra/shortlist_corpus.jsonl.gz"  # candidate ids
CATALOGUE_FILE: Final = "assets.extra/shortlist_catalogue.jsonl.gz"  # titles and attributes
USERS_FILE: Final = "assets.extra/shortlist_users.jsonl.gz"  # sampled users' interactions
TOWERS_FILE: Final = "assets.extra/shortlist_towers.json"  # for versions made from this one
TRAINING_FOLDER: Final = "assets.extra/shortlist_training"  # state for a later training

# --- defaults -----------------------------------------------------------------
DEFAULT_TOP_K: Final = 100  # K of SERVING_DEFAULT, fixed at export
DEFAULT_K: Final = 10  # candidates per user that a client asks for
DEFAULT_TIMEOUT: Final = 5.0  # seconds, one deadline for a call with its retries
DEFAULT_WAIT_TIMEOUT: Final = 60.0  # seconds, for a servable to become AVAILABLE
DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_GRPC_PORT: Final = 8500
DEFAULT_REST_PORT: Final = 8501
DEFAULT_UI_PORT: Final = 8503  # of the page
DEFAULT_GRPC_ADDRESS: Final = f"{DEFAULT_HOST}:{DEFAULT_GRPC_PORT}"
DEFAULT_REST_ADDRESS: Final = f"{DEFAULT_HOST}:{DEFAULT_REST_PORT}"
DEFAULT_SERVABLE: Final = servable_name(DEFAULT_MODEL, DEFAULT_INDEX)  # a client asks it
