"""From a JSON classify or regress request to `tf.Example`s."""

from typing import Any

from shortlist.clients.wire import messages
from shortlist.serving.embedded.api.errors import invalid
from shortlist.serving.embedded.rest.json.exact import (
    decode_base64,
    is_base64_object,
    json_type,
    parse_object,
    shown,
    signature_name_of,
)
from shortlist.serving.embedded.rest.json.parser import JsonObject

__all__ = ["parse_examples"]


def parse_examples(body: bytes) -> tuple[str, messages.Input]:
    """Return the signature name (empty if there is none) and the examples of a request.

    Raises:
        StatusError: The body is not such a request.
    """
    document = parse_object(body)
    signature_name = signature_name_of(document)
    request_input = messages.Input()
    context: messages.Example | None = None
    if document.has(b"context"):
        context = _example(document.first(b"context"))
    if not document.has(b"examples"):
        raise shown(
            document, "When method is classify, key 'examples' is expected and was not found"
        )
    examples = document.first(b"examples")
    if not isinstance(examples, list) or isinstance(examples, JsonObject):
        raise shown(document, "Expecting 'examples' value to be an list/array")
    if not examples:
        raise shown(document, "'examples' value is an empty array")
    parsed = [_example(value) for value in examples]
    if context is None:
        request_input.example_list.examples.extend(parsed)
    else:
        request_input.example_list_with_context.context.CopyFrom(context)
        request_input.example_list_with_context.examples.extend(parsed)
    return signature_name, request_input


def _example(value: Any) -> messages.Example:
    if not isinstance(value, JsonObject):
        raise invalid(f"Example must be JSON object but got JSON {json_type(value)}")
    example = messages.Example()
    example.features.SetInParent()
    for key, content in value:
        name = key.partition(b"\0")[0].decode("utf-8", "replace")
        feature = messages.Feature()
        is_list = isinstance(content, list) and not isinstance(content, JsonObject)
        for element in content if is_list else [content]:
            _add(element, name, feature)
        example.features.feature[name].CopyFrom(feature)
    return example


def _add(value: Any, name: str, feature: messages.Feature) -> None:
    """Add one value to a feature, whose first value decides its type."""
    if isinstance(value, bool):
        _need_kind(feature, "int64_list", name)
        feature.int64_list.value.append(int(value))
    elif isinstance(value, bytes):
        _need_kind(feature, "bytes_list", name)
        feature.bytes_list.value.append(value)
    elif isinstance(value, float):
        _need_kind(feature, "float_list", name)
        feature.float_list.value.append(value)
    elif isinstance(value, int):
        _need_kind(feature, "int64_list", name)
        if value >= 2**63:
            raise invalid(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
        feature.int64_list.value.append(value)
    elif is_base64_object(value):
        _need_kind(feature, "bytes_list", name)
        feature.bytes_list.value.append(decode_base64(value))
    else:
        raise invalid(f"Feature: {name} has element with unexpected JSON type: {json_type(value)}")


def _need_kind(feature: messages.Feature, kind: str, name: str) -> None:
    present = feature.WhichOneof("kind")
    if present not in (None, kind):
        raise invalid(
            f"Unexpected element type in feature: {name} expecting type: "
            f"{str(present).removesuffix('_list')}"
        )
