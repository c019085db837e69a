"""SavedModels as notebooks of TensorFlow Recommenders save them, small and untrained."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from shortlist.export._tf import tf, tfrs

__all__ = ["PLAIN_MODELS", "write_plain_models"]

USERS = [str(number) for number in range(1, 41)]
TITLES = [f"Movie {number}" for number in range(60)]
DIM = 8
top_k = tfrs.layers.factorized_top_k


def _tower(lookup: Any, size: int) -> Any:
    initial = tf.keras.initializers.RandomUniform(seed=1)  # the same in every model
    return tf.keras.Sequential([lookup, tf.keras.layers.Embedding(size + 1, DIM, initial)])


def _titles() -> Any:
    return tf.random.stateless_normal([len(TITLES), DIM], seed=[1, 2])


def _users() -> Any:
    lookup = tf.keras.layers.StringLookup(vocabulary=USERS, mask_token=None)
    return _tower(lookup, len(USERS))


def _index(
    query: Any, example: Any, *, ids: Any = TITLES, kind: Any = top_k.BruteForce, **options: Any
) -> Any:
    layer = kind(query, k=5, **options)
    layer.index(_titles(), tf.constant(ids))
    layer(example)
    return layer


class _ByName(tf.keras.Model):
    """A query model that takes features by name."""

    def __init__(self) -> None:
        super().__init__()
        self.users = _users()
        self.days = tf.keras.layers.Embedding(7, DIM)

    def call(self, inputs: Mapping[str, Any]) -> Any:
        return self.users(inputs["user_id"]) + self.days(inputs["day"])


class _Scalar(tf.Module):
    """One user and k as scalars."""

    def __init__(self) -> None:
        super().__init__()
        self.index = _index(_users(), tf.constant(["1"]))

    @tf.function(
        autograph=False,
        input_signature=[
            tf.TensorSpec([], tf.string, name="user"),
            tf.TensorSpec([], tf.int32, name="k"),
        ],
    )
    def one(self, user: Any, k: Any) -> Any:
        scores, titles = self.index(user[None])
        return {"titles": titles[0, :k], "scores": scores[0, :k]}


class _Ambiguous(tf.Module):
    """Two strings per row, and two rankings."""

    def __init__(self) -> None:
        super().__init__()
        self.index = _index(_users(), tf.constant(["1"]))

    @tf.function(
        autograph=False,
        input_signature=[
            tf.TensorSpec([None], tf.string, name="country"),
            tf.TensorSpec([None], tf.string, name="who"),
        ],
    )
    def recommend(self, country: Any, who: Any) -> Any:
        scores, titles = self.index(who)
        return {
            "codes": tf.strings.substr(titles, 6, 2),
            "titles": titles,
            "scores": scores + 0 * tf.cast(tf.strings.length(country)[:, None], tf.float32),
        }


def _save(folder: Path, model: Any, signatures: Any = None) -> None:
    tf.saved_model.save(model, str(folder), signatures=signatures)


def _integers(folder: Path) -> None:
    lookup = tf.keras.layers.IntegerLookup(vocabulary=list(range(1, 41)))
    ids = tf.range(len(TITLES), dtype=tf.int64) + 1000
    _save(folder, _index(_tower(lookup, 40), tf.constant([3], tf.int64), ids=ids))


def _by_name(folder: Path) -> None:
    users = tf.keras.layers.Input((), dtype=tf.string, name="user_id")
    query = tf.keras.Model({"user_id": users}, _users()(users))
    _save(folder, _index(query, {"user_id": tf.constant(["1"])}))


def _features(folder: Path) -> None:
    example = {"user_id": tf.constant(["1"]), "day": tf.constant([2])}
    _save(folder, _index(_ByName(), example))


def _scann(folder: Path) -> None:
    layer = _index(_users(), tf.constant(["1"]), kind=top_k.ScaNN, num_leaves=4)
    options = tf.saved_model.SaveOptions(namespace_whitelist=["Scann"])
    tf.saved_model.save(layer, str(folder), options=options)


def _scalar(folder: Path) -> None:
    module = _Scalar()
    _save(folder, module, {"serving_default": module.one})


def _ambiguous(folder: Path) -> None:
    module = _Ambiguous()
    _save(folder, module, {"recommend": module.recommend})


def _never_called(folder: Path) -> None:
    layer = top_k.BruteForce(_users())
    layer.index(_titles(), tf.constant(TITLES))
    _save(folder, layer)


def _user_tower(folder: Path) -> None:
    tower = _users()
    tower(tf.constant(["1"]))
    tower.save(str(folder))


PLAIN_MODELS: Mapping[str, Callable[[Path], None]] = {
    "brute_force": lambda folder: _save(folder, _index(_users(), tf.constant(["1"]))),
    "by_name": _by_name,
    "integers": _integers,
    "features": _features,
    "scann": _scann,
    "scalar": _scalar,
    "ambiguous": _ambiguous,
    "user_tower": _user_tower,
    "never_called": _never_called,
}


def write_plain_models(root: Path, names: Sequence[str]) -> None:
    """Write the named models, each into its own folder."""
    tf.random.set_seed(1)
    for name in names:
        PLAIN_MODELS[name](root / name)
