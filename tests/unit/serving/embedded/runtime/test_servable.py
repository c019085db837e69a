"""The runtime with the recorded SavedModels: values, errors, time limits, isolation."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from shortlist.serving.embedded.api.errors import Code, StatusError
from tests.support.recorded import MODELS

if TYPE_CHECKING:
    from shortlist.serving.embedded.runtime.servable import SavedModelServable

pytestmark = [pytest.mark.conformance]


def load(name: str, version: int = 1, tags: tuple[str, ...] = ("serve",)) -> "SavedModelServable":
    from shortlist.serving.embedded.runtime.servable import RuntimeOptions, load_servable

    path = str(MODELS / name / str(version))
    return load_servable(name, version, path, tags=tags, options=RuntimeOptions())


def strings(*values: bytes) -> Any:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def refusal(action: Callable[[], Any]) -> tuple[Code, str]:
    with pytest.raises(StatusError) as caught:
        action()
    return caught.value.code, caught.value.message


@pytest.fixture(scope="module")
def dtypes() -> "SavedModelServable":
    return load("dtypes")


def test_versions_in_one_process_have_separate_variables() -> None:
    one, two = load("half_plus_two", 1), load("half_plus_two", 2)
    x = {"x": np.array([1.0, 2.0], np.float32)}
    assert one.run("serving_default", x, ["y"])["y"].tolist() == [2.5, 3.0]
    assert two.run("serving_default", x, ["y"])["y"].tolist() == [3.5, 4.0]
    one.close()
    assert two.run("serving_default", x, ["y"])["y"].tolist() == [3.5, 4.0]


def test_several_signatures_run_at_once_by_tensor_name() -> None:
    servable = load("half_plus_two", 1)
    feeds = {"px:0": np.array([1.0], np.float32), "ma:0": np.array([2.0], np.float32)}
    feeds["mb:0"] = np.array([[3.0, 4.0]], np.float32)
    y, total = servable.run_tensors(feeds, ["py:0", "msum:0"])
    assert (y.tolist(), total.tolist()) == ([2.5], [9.0])


@pytest.mark.parametrize(
    ("name", "version", "tags", "code", "message"),
    [
        ("broken/truncated_pb", 3, ("serve",), Code.OUT_OF_RANGE, "Read less bytes than requested"),
        ("broken/empty_version", 3, ("serve",), Code.NOT_FOUND,
         ("Specified file path does not appear to contain a SavedModel bundle (should have a file "
         "called `saved_model.pb`)\nSpecified file path: ")),
        ("half_plus_two", 1, ("gpu",), Code.NOT_FOUND,
         "Could not find meta graph def matching supplied tags: { gpu }. "),
    ],
)  # fmt: skip
def test_invalid_saved_model_is_refused(
    name: str, version: int, tags: tuple[str, ...], code: Code, message: str
) -> None:
    code_and_message = refusal(lambda: load(name, version, tags))
    assert code_and_message[0] == code
    assert code_and_message[1].startswith(message)


def test_model_without_its_variables_loads_and_fails_when_run() -> None:
    servable = load("broken/no_variables", 3)
    x = {"x": np.array([1.0], np.float32)}
    code, message = refusal(lambda: servable.run("serving_default", x, ["y"]))
    assert code == Code.FAILED_PRECONDITION
    assert message.startswith("Could not find variable")


def test_wrong_type_is_refused_with_the_runtimes_message(dtypes: "SavedModelServable") -> None:
    assert refusal(lambda: dtypes.run("float32", {"x": np.array([1.0])}, ["y"])) == (
        Code.INVALID_ARGUMENT,
        "Expects arg[0] to be float but double is provided",
    )


def test_failing_op_does_not_affect_concurrent_requests(dtypes: "SavedModelServable") -> None:
    def gather(index: int) -> Any:
        try:
            return dtypes.run("gather", {"i": np.array([index], np.int32)}, ["v"])["v"].tolist()
        except StatusError as exc:
            return exc.message.split("\n")[0]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(gather, [0, 7] * 100))
    assert answers == [[10.0], "indices[0] = 7 is not in [0, 3)"] * 100


@pytest.mark.parametrize("name", ["float16", "half", "complex64", "uint64", "bool", "string"])
def test_values_of_every_type_survive(dtypes: "SavedModelServable", name: str) -> None:
    values = {
        "float16": np.array([1.5, np.inf], np.float16),
        "half": np.array([1.5, -0.0], np.float16),
        "complex64": np.array([1 + 2j], np.complex64),
        "uint64": np.array([2**64 - 1], np.uint64),
        "bool": np.array([True, False]),
        "string": strings(b"\xff\xfe\x00", b""),
    }[name]
    signature = "half" if name == "float16" else name
    back = dtypes.run(signature, {"x": values}, ["y"])["y"]
    assert back.dtype == values.dtype
    np.testing.assert_array_equal(back, values)


def test_scalar_string_stays_a_scalar(dtypes: "SavedModelServable") -> None:
    back = dtypes.run("scalar_string", {"x": np.array(b"a", object)}, ["y"])["y"]
    assert (back.shape, back.dtype, back.item()) == ((), np.dtype(object), b"a")


def test_time_limit_stops_a_loop_while_others_run(dtypes: "SavedModelServable") -> None:
    slow = {"n": np.array([100_000_000], np.int32)}
    done = threading.Event()

    def others() -> None:
        for _ in range(50):
            dtypes.run("float32", {"x": np.array([1.0], np.float32)}, ["y"])
        done.set()

    thread = threading.Thread(target=others)
    thread.start()
    late = refusal(lambda: dtypes.run("slow", slow, ["done"], timeout=0.5))
    assert late == (Code.DEADLINE_EXCEEDED, "Timed out waiting for notification")
    thread.join(5)
    assert done.is_set()


def test_tensor_that_the_graph_lacks_is_refused(dtypes: "SavedModelServable") -> None:
    code, message = refusal(lambda: dtypes.run_tensors({}, ["nope:0"]))
    assert code == Code.INVALID_ARGUMENT
    assert message.startswith("Tensor nope:0, specified in either feed_devices or fetch_devices")


def test_op_that_quotes_bytes_that_are_not_utf8_is_an_invalid_argument() -> None:
    model = load("half_plus_two")
    inputs = {next(iter(model.signatures["classify_x_to_y"].inputs)): strings(b"n\xf2 example")}
    code, message = refusal(lambda: model.run("classify_x_to_y", inputs, ["scores"]))
    assert code is Code.INVALID_ARGUMENT
    assert "example" in message
    model.close()
