"""Write the SavedModels that the answers were recorded from, with fixed seeds.

  python -m tests.conformance.make_models FOLDER

Errors of the runtime name nodes of the graph, so the recorded answers belong to the files in
recorded/models; another TensorFlow may name the nodes of a new model differently.
"""

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras
from tensorflow.python.saved_model import builder, signature_def_utils, tag_constants
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

__all__ = ["main"]

Tensors = dict[str, tf.Tensor]

# Values at the edges of a type, and those that printers of numbers disagree about.
FLOAT32 = [
    *(float("nan"), float("inf"), float("-inf"), 3.4028235e38, -3.4028235e38, 1e-45),
    *(1.1754944e-38, -0.0, 0.0, 0.1, 1 / 3, 16777217.0, 123456.789, 1e10, 1e20, 1e21, 1e22),
    *(1e-4, 1e-5, 1e-6, 1e-7, 100.0, 1234567.0, 12345678.0),
]
FLOAT64 = [
    *(float("nan"), float("inf"), float("-inf"), 1.7976931348623157e308, 5e-324),
    *(2.2250738585072014e-308, -0.0, 0.0, 0.1, 1 / 3, 9007199254740993.0, 123456.789, 1e15),
    *(1e16, 1e17, 1e20, 1e21, 1e22, 1e-4, 1e-5, 1e-6, 1e-7, 100.0),
]
INT64 = [0, 1, -1, 2**31, 2**53 - 1, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)]
STRINGS = [
    *(b"plain", "café".encode(), "七人の侍".encode(), "🎬".encode(), b'quote " and \\ back'),
    *(b"tab\tnl\ncr\r", b"\x01\x1f\x7f", "\u2028\u2029".encode(), b"</script>", b"", b"a/b"),
]
BAD_UTF8 = [b"\xff\xfe\x00\x01", b"ok"]
TYPES = {
    "float32": tf.float32,
    "float64": tf.float64,
    "int32": tf.int32,
    "int64": tf.int64,
    "uint8": tf.uint8,
    "bool": tf.bool,
    "string": tf.string,
    "int8": tf.int8,
    "int16": tf.int16,
    "uint16": tf.uint16,
    "uint32": tf.uint32,
    "uint64": tf.uint64,
    "half": tf.half,
    "complex64": tf.complex64,
}
USERS = [*(f"user-{number}" for number in range(46)), "usér-é", "用户", 'user "q"', "user/slash"]
CANDIDATES = [
    *(f"item-{number}" for number in range(50)),
    *("Amélie (2001)", "七人の侍", 'The "Quoted" One', "it's", "back\\slash", "tab\there"),
    *("emoji 🎬", "<b>&amp;</b>", "Ñandú, El", "a/b?c=d#e"),
]


def write_half_plus(path: Path, addend: float) -> None:
    """Write `y = x / 2 + addend` with predict, regress and classify signatures."""
    v1, graph = tf.compat.v1, tf.Graph()
    with graph.as_default(), v1.Session(graph=graph) as session:
        factor = v1.get_variable("a", initializer=0.5, use_resource=True)
        constant = v1.get_variable("b", initializer=float(addend), use_resource=True)
        x = v1.placeholder(tf.float32, [None], name="px")
        examples = v1.placeholder(tf.string, [None], name="tf_example")
        features = v1.parse_example(
            examples,
            {
                "x": v1.FixedLenFeature([1], tf.float32),
                "x2": v1.FixedLenFeature([1], tf.float32, default_value=[0.0]),
            },
        )
        y = tf.add(factor * features["x"], constant, name="y")
        y3 = tf.add(factor * features["x2"], 3.0, name="y2")
        classes = tf.tile(tf.constant([["low", "high"]]), [tf.shape(y)[0], 1])
        high = tf.sigmoid(y - 3.0)
        scores = tf.concat([1.0 - high, high], 1, name="class_scores")
        a = v1.placeholder(tf.float32, [None], name="ma")
        b = v1.placeholder(tf.float32, [None, 2], name="mb")
        several = {
            "sum": tf.add(a, tf.reduce_sum(b, 1), name="msum"),
            "prod": tf.multiply(b, a[:, tf.newaxis], name="mprod"),
        }
        session.run(v1.global_variables_initializer())
        predict = signature_def_utils.predict_signature_def
        regress = signature_def_utils.regression_signature_def
        classify = signature_def_utils.classification_signature_def
        writer = builder.SavedModelBuilder(str(path))
        writer.add_meta_graph_and_variables(
            session,
            [tag_constants.SERVING],
            signature_def_map={
                "serving_default": predict(
                    {"x": x}, {"y": tf.add(factor * x, constant, name="py")}
                ),
                "regress_x_to_y": regress(examples, y),
                "regress_x_to_y_rank1": regress(examples, tf.squeeze(y, [1])),
                "regress_x2_to_y3": regress(examples, y3),
                "classify_x_to_y": classify(examples, classes, scores),
                "classify_scores_only": classify(examples, None, scores),
                "classify_classes_only": classify(examples, classes, None),
                "multi_in_out": predict({"a": a, "b": b}, several),
            },
        )
        writer.save()


class Signatures(dict[str, Any]):
    """Signatures by name, each from a function and the types and shapes of its inputs."""

    def add(
        self,
        name: str,
        function: Callable[..., Tensors],
        **inputs: tuple[Any, Sequence[Any] | None],
    ) -> None:
        """Add one signature; inputs are `name=(dtype, shape)`."""
        specs = [tf.TensorSpec(shape, dtype, key) for key, (dtype, shape) in inputs.items()]
        self[name] = tf.function(function, input_signature=specs)


def write_dtypes(path: Path) -> None:
    """Write a model with a signature for each type, rank and odd value."""
    signatures = Signatures()
    _add_identities(signatures)
    _add_constants(signatures)
    _add_shapes(signatures)
    tf.saved_model.save(tf.Module(), str(path), signatures=signatures)


def _add_identities(signatures: Signatures) -> None:
    shapes: dict[str, tuple[Any, list[Any] | None]] = {
        **{name: (dtype, [None]) for name, dtype in TYPES.items()},
        "scalar_float": (tf.float32, []),
        "scalar_string": (tf.string, []),
        "rank2_float": (tf.float32, [None, 3]),
        "rank2_string": (tf.string, [None, 2]),
        "rank3_int": (tf.int32, [None, 2, 2]),
        "fixed_batch2": (tf.float32, [2]),
        "unknown_rank_float": (tf.float32, None),
        "unknown_rank_string": (tf.string, None),
    }
    for name, spec in shapes.items():
        signatures.add(name, lambda x: {"y": tf.identity(x)}, x=spec)


def _add_constants(signatures: Signatures) -> None:
    """Add signatures that answer each row of `x` with the same values."""

    def add(name: str, values: Sequence[Any], dtype: Any, key: str = "y") -> None:
        row = tf.constant(values, dtype)[tf.newaxis]
        signatures.add(
            name, lambda x: {key: tf.tile(row, [tf.shape(x)[0], 1])}, x=(tf.float32, [None])
        )

    add("special_float32", FLOAT32, tf.float32)
    add("special_float64", FLOAT64, tf.float64)
    add("big_int64", INT64, tf.int64)
    add("strings_out", STRINGS, tf.string)
    add("strings_out_bytes", STRINGS + BAD_UTF8, tf.string, "y_bytes")
    add("bad_utf8_out", BAD_UTF8, tf.string)


def _add_shapes(signatures: Signatures) -> None:
    """Add signatures whose names or shapes the REST API treats in ways of their own."""
    add, floats, strings, integers = (
        signatures.add,
        (tf.float32, [None]),
        (tf.string, [None]),
        (tf.int32, [None]),
    )
    add("bytes_one", lambda data: {"data_bytes": tf.identity(data)}, data=strings)
    add(
        "bytes_two",
        lambda data: {
            "data_bytes": tf.identity(data),
            "plain": tf.strings.join(["<", data, ">"]),
        },
        data=strings,
    )
    add(
        "bytes_in",
        lambda image_bytes: {"length": tf.strings.length(image_bytes)},
        image_bytes=strings,
    )
    add("zero_width", lambda x: {"y": tf.zeros([tf.shape(x)[0], 0])}, x=floats)
    add("scalar_out", lambda x: {"y": tf.reduce_sum(x)}, x=floats)
    add(
        "row_and_scalar_out",
        lambda x: {"y": tf.identity(x), "total": tf.reduce_sum(x)},
        x=floats,
    )
    add(
        "different_batch_out",
        lambda x: {"y": tf.identity(x), "z": tf.constant([1.0, 2.0, 3.0, 4.0])},
        x=floats,
    )
    add("string_length", lambda x: {"n": tf.strings.length(x)}, x=strings)
    add(
        "total",
        lambda x: {"n": tf.shape(x)[1] * tf.ones([tf.shape(x)[0]], tf.int32)},
        x=(tf.float32, [None, None]),
    )
    add(
        "two_in",
        lambda a, b: {"a_out": tf.identity(a), "b_out": tf.identity(b)},
        a=integers,
        b=strings,
    )
    add("add_two", lambda a, b: {"sum": a + b}, a=floats, b=floats)
    table = tf.constant([10.0, 11.0, 12.0])
    add("gather", lambda i: {"v": tf.gather(table, i)}, i=integers)
    add("slow", _slow, n=integers)


def _slow(n: tf.Tensor) -> Tensors:
    """Loop `max(n)` times, so that a request lasts as long as its caller wants."""
    most = tf.reduce_max(n)
    done = tf.while_loop(
        lambda i, total: i < most,
        lambda i, total: (i + 1, tf.tanh(total + tf.cast(i, tf.float32))),
        (0, tf.zeros([16])),
        parallel_iterations=1,
    )
    return {"done": tf.minimum(n, done[0])}


class Retrieval(tf.Module):
    """An index of TensorFlow Recommenders over random embeddings, as its tutorials save it."""

    def __init__(self, *, seed: int, scann: bool, k: int = 5) -> None:
        super().__init__()
        random = np.random.default_rng(seed)
        tf_keras.utils.set_random_seed(seed)
        users = random.normal(size=(len(USERS) + 1, 8)).astype("f4")
        candidates = random.normal(size=(len(CANDIDATES), 8)).astype("f4")
        embedding = tf_keras.layers.Embedding(
            len(USERS) + 1, 8, embeddings_initializer=tf_keras.initializers.Constant(users)
        )
        lookup = tf_keras.layers.StringLookup(vocabulary=USERS, mask_token=None)
        tower = tf_keras.Sequential([lookup, embedding])
        tower(tf.constant(["user-1"]))  # creates its weights
        layers = tfrs.layers.factorized_top_k
        self.index = (
            layers.ScaNN(
                tower, k=k, num_leaves=4, num_leaves_to_search=4, num_reordering_candidates=60
            )
            if scann
            else layers.BruteForce(tower, k=k)
        )
        batches = [
            tf.data.Dataset.from_tensor_slices(values).batch(60)
            for values in (CANDIDATES, candidates)
        ]
        self.index.index_from_dataset(tf.data.Dataset.zip(tuple(batches)))
        self.index(tf.constant(["user-1"]))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="user_id")])
    def serve(self, user_id: tf.Tensor) -> Tensors:
        scores, ids = self.index(user_id)
        return {"candidate_ids": ids, "scores": scores}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="user_id"),
            tf.TensorSpec([], tf.int32, name="k"),
        ]
    )
    def with_k(self, user_id: tf.Tensor, k: tf.Tensor) -> Tensors:
        scores, ids = self.index(user_id, k=k)
        return {"candidate_ids": ids, "scores": scores}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="user_id"),
            tf.TensorSpec([None, 2], tf.string, name="exclude"),
        ]
    )
    def excluding(self, user_id: tf.Tensor, exclude: tf.Tensor) -> Tensors:
        scores, ids = self.index.query_with_exclusions(user_id, exclude)
        return {"candidate_ids": ids, "scores": scores}


def write_retrieval(path: Path, *, seed: int, scann: bool = False) -> None:
    """Write a retrieval model with brute force or ScaNN."""
    model = Retrieval(seed=seed, scann=scann)
    names = ("with_k", "excluding")
    tf.saved_model.save(
        model,
        str(path),
        signatures={
            "serving_default": model.serve,
            **{name: getattr(model, name) for name in names},
        },
        options=tf.saved_model.SaveOptions(namespace_whitelist=["Scann"]) if scann else None,
    )


def write_warmup(version: Path, records: Sequence[bytes]) -> None:
    """Write the warm-up requests of a version."""
    file = version / "assets.extra" / "tf_serving_warmup_requests"
    file.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for record in records:
            writer.write(record)


def predict_log(**inputs: Any) -> bytes:
    """Return a warm-up record that calls `serving_default` of `half_plus_two`."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "half_plus_two"
    request.model_spec.signature_name = "serving_default"
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    log = prediction_log_pb2.PredictLog(request=request)
    record: bytes = prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString()
    return record


def write_broken(folder: Path, good: Path) -> None:
    """Write damaged and oddly named copies of a good version, each in a model folder of its own."""

    def copy(model: str, version: str = "3") -> Path:
        return Path(shutil.copytree(good, folder / model / version))

    with (copy("truncated_pb") / "saved_model.pb").open("r+b") as file:
        file.truncate(200)
    shutil.rmtree(copy("no_variables") / "variables")
    (folder / "empty_version" / "3").mkdir(parents=True)
    (folder / "empty_version" / "3" / ".gitkeep").touch()
    copy("zero_padded", "00003")
    copy("non_integer", "latest")
    x = np.array([1, 2], "f4")
    write_warmup(copy("warmup_good"), [predict_log(x=x)] * 2)
    write_warmup(copy("warmup_failing"), [predict_log(nope=x)])
    write_warmup(copy("warmup_garbage"), [b"not a PredictionLog"])


def main(folder: Path) -> None:
    """Write all models into a folder that does not exist."""
    folder.mkdir(parents=True)
    for version, addend in (("1", 2), ("2", 3)):
        write_half_plus(folder / "half_plus_two" / version, addend)
        write_retrieval(folder / "retrieval_brute_force" / version, seed=int(version))
    write_dtypes(folder / "dtypes" / "1")
    write_retrieval(folder / "retrieval_scann" / "1", seed=1, scann=True)
    write_broken(folder / "broken", folder / "half_plus_two" / "1")
    for assets in folder.rglob("assets"):
        if not any(assets.iterdir()):
            assets.rmdir()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
