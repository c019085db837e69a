"""Classify, Regress and MultiInference: calls that take `tf.Example`s.

Checks, their order and all error messages follow TensorFlow Serving's
`servables/tensorflow/{classifier,regressor,multi_inference,util}.cc`.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from google.protobuf.text_format import MessageToString

from shortlist.clients.contract import SERVING_DEFAULT
from shortlist.clients.wire import messages
from shortlist.serving.embedded.api.dtypes import dtype_of
from shortlist.serving.embedded.api.errors import Code, StatusError, invalid
from shortlist.serving.embedded.api.inference import (
    CLASSIFY_METHOD,
    REGRESS_METHOD,
    Call,
    model_spec,
    response_bytes,
    timed_run,
)
from shortlist.serving.embedded.api.interfaces import Servable
from shortlist.serving.embedded.api.tensors import object_array, shape_text

__all__ = ["classify", "multi_inference", "regress", "signature_spec"]

_INPUTS: Final = "inputs"
_CLASSES: Final = "classes"
_SCORES: Final = "scores"
_OUTPUTS: Final = "outputs"


def classify(
    servable: Servable, request: messages.ClassificationRequest, call: Call
) -> messages.ClassificationResponse:
    """Answer Classify.

    Raises:
        StatusError: The signature is not a classification, the input does not fit it, or
            the run failed.
    """
    outputs, rows, spec = _run(servable, request, call, CLASSIFY_METHOD, "Classify")
    result = _classification_result(outputs, rows, call)
    return messages.ClassificationResponse(result=result, model_spec=spec)


def regress(
    servable: Servable, request: messages.RegressionRequest, call: Call
) -> messages.RegressionResponse:
    """Answer Regress.

    Raises:
        StatusError: The signature is not a regression, the input does not fit it, or the
            run failed.
    """
    outputs, rows, spec = _run(servable, request, call, REGRESS_METHOD, "Regress")
    result = _regression_result(outputs[_OUTPUTS], rows)
    return messages.RegressionResponse(result=result, model_spec=spec)


def _run(
    servable: Servable,
    request: messages.ClassificationRequest | messages.RegressionRequest,
    call: Call,
    method: str,
    api: str,
) -> tuple[Mapping[str, npt.NDArray[Any]], int, messages.ModelSpec]:
    """Return the outputs, the number of examples, and the spec of the servable."""
    name = request.model_spec.signature_name or SERVING_DEFAULT
    definition = _named_signature(servable, name)
    _check_signature(definition, call, method)
    examples = _serialized_examples(request.input, call)
    names = list(definition.outputs)
    outputs = timed_run(servable, name, {_INPUTS: examples}, names, call, api)
    return outputs, len(examples), model_spec(request.model_spec.name, name, servable.version)


def signature_spec(name: str) -> messages.ModelSpec:
    """Return a spec that names a signature; empty for the default signature.

    Raises:
        StatusError: The name is not UTF-8, so no signature has it.
    """
    try:
        return messages.ModelSpec(signature_name=name)
    except UnicodeEncodeError:
        raise _no_signature(name) from None


def _no_signature(name: str) -> StatusError:
    return invalid(f"No signature was found with the name: {name}")


def _named_signature(servable: Servable, name: str) -> messages.SignatureDef:
    definition: messages.SignatureDef | None = servable.signatures.get(name)
    if definition is None:
        raise _no_signature(name)
    return definition


def _check_signature(definition: messages.SignatureDef, call: Call, method: str) -> None:
    classifies = method == CLASSIFY_METHOD
    kind = "classification" if classifies else "regression"
    if call.options.check_method_names and definition.method_name != method:
        raise invalid(
            f"Expected {kind} signature method_name to be {method}. Was: {definition.method_name}"
        )
    if len(definition.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if classifies and len(definition.outputs) not in (1, 2):
        raise invalid(f"Expected one or two output Tensors, found {len(definition.outputs)}")
    if not classifies and len(definition.outputs) != 1:
        raise invalid("Expected one output Tensor.")
    if _INPUTS not in definition.inputs:
        raise invalid(f"No {kind} inputs found in SignatureDef: {MessageToString(definition)}")
    if classifies and _CLASSES not in definition.outputs and _SCORES not in definition.outputs:
        raise invalid(
            "Expected classification signature outputs to contain at least one of "
            f'"{_CLASSES}" or "{_SCORES}". Signature was: {MessageToString(definition)}'
        )
    if not classifies and _OUTPUTS not in definition.outputs:
        raise invalid(f"No regression outputs found in SignatureDef: {MessageToString(definition)}")


def _serialized_examples(request_input: messages.Input, call: Call) -> npt.NDArray[Any]:
    """Return each example serialised, after the context, whose features it can override.

    Raises:
        StatusError: There are none, too many, or the context makes too much of them.
    """
    context = b""
    if request_input.WhichOneof("kind") == "example_list_with_context":
        context = request_input.example_list_with_context.context.SerializeToString()
        examples = request_input.example_list_with_context.examples
    else:
        examples = request_input.example_list.examples
    if not examples:
        raise invalid("Input is empty.")
    limits = call.options.limits
    limits.check_rows(len(examples))
    copied = len(context) * len(examples)
    limits.check_bytes(copied)
    call.memory.need(2 * copied)  # here and in the runtime
    return object_array([context + example.SerializeToString() for example in examples])


def _enum_name(array: npt.NDArray[Any]) -> str:
    return messages.DataType.Name(dtype_of(array).number)


def _check_class_tensor(
    array: npt.NDArray[Any], rows: int, kind: str, dtype: str, numpy_type: Any
) -> None:
    if array.ndim != 2:
        raise invalid(
            f"Expected Tensor shape: [batch_size num_classes] but got {shape_text(array.shape)}"
        )
    if array.dtype != numpy_type:
        raise invalid(f"Expected {kind} Tensor of {dtype}. Got: {_enum_name(array)}")
    if array.shape[0] != rows:
        raise invalid(f"Expected {kind} output batch size of {rows}. Got: {array.shape[0]}")


def _classification_result(
    outputs: Mapping[str, npt.NDArray[Any]], rows: int, call: Call
) -> messages.ClassificationResult:
    classes, scores = outputs.get(_CLASSES), outputs.get(_SCORES)
    if classes is not None:
        _check_class_tensor(classes, rows, "classes", "DT_STRING", object)
    if scores is not None:
        _check_class_tensor(scores, rows, "scores", "DT_FLOAT", np.float32)
    if classes is not None and scores is not None and classes.shape[1] != scores.shape[1]:
        raise invalid(
            "Tensors class and score should match in dim_size(1). Got "
            f"{classes.shape[1]} vs. {scores.shape[1]}"
        )
    width = next(array.shape[1] for array in (classes, scores) if array is not None)
    call.options.limits.check_results(rows, width)
    result = messages.ClassificationResult()
    for row in range(rows):
        classifications = result.classifications.add()
        for column in range(width):
            entry = classifications.classes.add()
            if classes is not None:
                # Labels are bytes; a proto3 string holds only UTF-8.
                entry.label = classes[row, column].decode("utf-8", "replace")
            if scores is not None:
                entry.score = float(scores[row, column])
    return result


def _regression_result(array: npt.NDArray[Any], rows: int) -> messages.RegressionResult:
    if not (array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)):
        raise invalid(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            + shape_text(array.shape)
        )
    if array.shape[0] != rows:
        raise invalid(
            f"Input batch size did not match output batch size: {rows} vs. {array.shape[0]}"
        )
    if array.dtype != np.float32:
        raise invalid(f"Expected output Tensor of DT_FLOAT.  Got: {_enum_name(array)}")
    result = messages.RegressionResult()
    for value in array.ravel().tolist():
        result.regressions.add(value=value)
    return result


def multi_inference(
    servable: Servable, request: messages.MultiInferenceRequest, call: Call
) -> messages.MultiInferenceResponse:
    """Answer MultiInference: several signatures on the same examples, in one run.

    Raises:
        StatusError: The tasks contradict each other; also see `classify` and `regress`.
    """
    definitions = _task_signatures(servable, request, call)
    feeds = {definition.inputs[_INPUTS].name for definition in definitions}
    fetches = sorted(
        {info.name for definition in definitions for info in definition.outputs.values()}
    )
    examples = _serialized_examples(request.input, call)
    arrays = servable.run_tensors(
        dict.fromkeys(sorted(feeds), examples), fetches, timeout=call.timeout
    )
    call.options.limits.check_response(response_bytes(arrays))
    by_tensor = dict(zip(fetches, arrays, strict=True))
    call.metrics.examples(servable.name, len(examples))
    response = messages.MultiInferenceResponse()
    for task, definition in zip(request.tasks, definitions, strict=True):
        outputs = {alias: by_tensor[info.name] for alias, info in definition.outputs.items()}
        spec = model_spec(task.model_spec.name, task.model_spec.signature_name, servable.version)
        result = response.results.add(model_spec=spec)
        if task.method_name == CLASSIFY_METHOD:
            classified = _classification_result(outputs, len(examples), call)
            result.classification_result.CopyFrom(classified)
        else:
            result.regression_result.CopyFrom(_regression_result(outputs[_OUTPUTS], len(examples)))
    return response


def _task_signatures(
    servable: Servable, request: messages.MultiInferenceRequest, call: Call
) -> list[messages.SignatureDef]:
    definitions: list[messages.SignatureDef] = []
    model, seen = "", set()
    for task in request.tasks:
        if not task.model_spec.name:
            raise invalid("Found ModelSpec with an empty model name.")
        model = model or task.model_spec.name
        if model != task.model_spec.name:
            raise invalid(
                "All ModelSpecs in a MultiInferenceRequest must access the same model name."
            )
        name = task.model_spec.signature_name or SERVING_DEFAULT
        if name in seen:
            raise invalid(f"Duplicate evaluation of signature: {name}")
        seen.add(name)
        definition = servable.signatures.get(name)
        if definition is None:
            raise invalid(f"Requested signature not found in model graph: {name}")
        if task.method_name not in (CLASSIFY_METHOD, REGRESS_METHOD):
            raise StatusError(
                Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}"
            )
        _check_signature(definition, call, task.method_name)
        definitions.append(definition)
    return definitions
