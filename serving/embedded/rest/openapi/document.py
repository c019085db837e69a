"""The OpenAPI document, made from the signatures of the loaded servables."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from shortlist.clients.contract import SERVING_DEFAULT
from shortlist.clients.wire import messages
from shortlist.serving.embedded.api.inference import CLASSIFY_METHOD, REGRESS_METHOD
from shortlist.serving.embedded.rest.openapi.tensors import (
    example_inputs,
    has_rows,
    input_schemas,
    output_schemas,
    row_schema,
)

__all__ = ["ServedModel", "document"]

_JSON: Final = "application/json"
_ERROR: Final = {"$ref": "#/components/responses/.error"}
_ERRORS: Final = dict.fromkeys(("400", "404", "429", "503", "504"), _ERROR)
_EXAMPLES: Final = {"classify": CLASSIFY_METHOD, "regress": REGRESS_METHOD}
_KEY: Final = re.compile(r"[^A-Za-z0-9._-]")
_ABOUT: Final = """\
TensorFlow Serving's REST API, answered by Shortlist's embedded server. This document is made from \
the signatures of the loaded servables. A model's newest version is described; other versions may \
differ (`GET .../versions/N/metadata`). Answers can have bare `NaN` and `Infinity` as numbers."""
_SERVER_TAG: Final = "server"
_SUMMARIES: Final = {
    "status": "States of the versions",
    "metadata": "Signatures",
    "predict": "Run a signature",
    "classify": "Classify examples",
    "regress": "Regress examples",
}
_STATUS: Final = {
    "type": "object",
    "properties": {
        "model_version_status": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "version": {"type": "string", "description": "int64 as text"},
                    "state": {
                        "enum": ["START", "LOADING", "AVAILABLE", "UNLOADING", "END", "UNKNOWN"]
                    },
                    "status": {
                        "type": "object",
                        "properties": {
                            "error_code": {"type": "string"},
                            "error_message": {"type": "string"},
                        },
                    },
                },
            },
        }
    },
}


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """One configured model.

    Attributes:
        name: Model name.
        versions: AVAILABLE versions, highest first.
        labels: Version labels, sorted.
        signatures: Signatures of the newest AVAILABLE version by name; empty without one.
        samples: Requests that it has answered, by signature name.
    """

    name: str
    versions: tuple[int, ...]
    labels: tuple[str, ...]
    signatures: Mapping[str, messages.SignatureDef] = field(default_factory=dict)
    samples: Mapping[str, messages.PredictRequest] = field(default_factory=dict)


def document(
    models: list[ServedModel], *, version: str, metrics_path: str | None = None
) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of a server.

    Args:
        models: The configured models.
        version: Version of the server.
        metrics_path: Path of the page for Prometheus, if there is one.
    """
    paths = _server_paths(metrics_path)
    bodies: dict[str, Any] = {}
    answers: dict[str, Any] = {}
    for model in models:
        key = _KEY.sub("_", model.name)
        bodies[key], answers[key] = _predict_body(model), _predict_answer(model)
        for part, parameters, suffix in _forms(model):
            base = f"/v1/models/{quote(model.name, safe='')}{part}"
            if "labels" not in part:  # the server ignores them there
                paths[base] = {"get": _operation(model, "status", suffix, parameters, _STATUS)}
            metadata: dict[str, Any] = {"type": "object"}
            paths[f"{base}/metadata"] = {
                "get": _operation(model, "metadata", suffix, parameters, metadata)
            }
            predict = _operation(model, "predict", suffix, parameters, {})
            predict["requestBody"] = {"$ref": f"#/components/requestBodies/{key}"}
            predict["responses"]["200"] = {"$ref": f"#/components/responses/{key}"}
            paths[f"{base}:predict"] = {"post": predict}
            for kind, method in _EXAMPLES.items():
                if any(value.method_name == method for value in model.signatures.values()):
                    operation = _operation(model, kind, suffix, parameters, {"type": "object"})
                    operation["requestBody"] = {"$ref": "#/components/requestBodies/.examples"}
                    paths[f"{base}:{kind}"] = {"post": operation}
    bodies[".examples"] = _examples_body()
    return {
        "openapi": "3.1.0",
        "info": {"title": "Model server", "version": version, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "tags": [*({"name": model.name} for model in models), {"name": _SERVER_TAG}],
        "paths": paths,
        "components": {
            "requestBodies": bodies,
            "responses": {".error": _error_answer(), **answers},
        },
    }


def _forms(model: ServedModel) -> list[tuple[str, list[dict[str, Any]], str]]:
    """Return the ways to name a version: part of the path, its parameters, and a suffix."""
    forms: list[tuple[str, list[dict[str, Any]], str]] = [("", [], "")]
    for word, values in (
        ("version", [str(version) for version in model.versions]),
        ("label", list(model.labels)),
    ):
        if values:
            schema = {"type": "string", "enum": values}
            parameter = {
                "name": word,
                "in": "path",
                "required": True,
                "schema": schema,
                "example": values[0],
            }
            forms.append((f"/{word}s/{{{word}}}", [parameter], f"_{word}"))
    return forms


def _operation(
    model: ServedModel,
    action: str,
    suffix: str,
    parameters: list[dict[str, Any]],
    answer: dict[str, Any],
) -> dict[str, Any]:
    of = f" of a {suffix[1:]}" if suffix else ""
    state = action == "status" and suffix
    summary = "State of a version" if state else _SUMMARIES[action] + of
    return {
        "operationId": f"{action}{suffix}_{_KEY.sub('_', model.name)}",
        "summary": summary,
        "tags": [model.name],
        **({"parameters": parameters} if parameters else {}),
        "responses": {
            "200": {"description": "Answer", "content": {_JSON: {"schema": answer}}},
            **_ERRORS,
        },
    }


def _public(model: ServedModel) -> dict[str, messages.SignatureDef]:
    """Return the signatures that requests can name, the default one first."""
    names = [name for name in model.signatures if not name.startswith("__")]
    names.sort(key=lambda name: (name != SERVING_DEFAULT, name))
    return {name: model.signatures[name] for name in names}


def _predict_body(model: ServedModel) -> dict[str, Any]:
    schemas, examples = [], {}
    for name, definition in _public(model).items():
        inputs = input_schemas(definition)
        named = {"signature_name": {"const": name}}
        required = [] if name == SERVING_DEFAULT else ["signature_name"]
        schemas.append(
            _object(
                f"{name}, columns",
                {**named, "inputs": _object("", inputs, [*inputs])},
                [*required, "inputs"],
            )
        )
        rows = has_rows(definition.inputs)
        if rows:
            row = {key: row_schema(schema) for key, schema in inputs.items()}
            instances = {"type": "array", "minItems": 1, "items": _object("", row, [*row])}
            schemas.append(
                _object(
                    f"{name}, rows", {**named, "instances": instances}, [*required, "instances"]
                )
            )
        values = example_inputs(definition, model.samples.get(name))
        if values is not None:
            value = {"signature_name": name, "inputs": values}
            examples[name] = {"summary": f"{name}: {', '.join(values)}", "value": value}
    content = {"schema": {"oneOf": schemas} if schemas else {"type": "object"}}
    return {
        "required": True,
        "content": {_JSON: {**content, **({"examples": examples} if examples else {})}},
    }


def _predict_answer(model: ServedModel) -> dict[str, Any]:
    schemas = []
    for name, definition in _public(model).items():
        outputs = output_schemas(definition)
        # A single output has no name in the answer.
        single = next(iter(outputs.values())) if len(outputs) == 1 else None
        columns = single or _object("", outputs, [*outputs])
        schemas.append(_object(f"{name}, columns", {"outputs": columns}, ["outputs"]))
        if has_rows(definition.inputs) and has_rows(definition.outputs):
            row = {key: row_schema(schema) for key, schema in outputs.items()}
            items = row_schema(single) if single else _object("", row, [*row])
            rows = {"type": "array", "items": items}
            schemas.append(_object(f"{name}, rows", {"predictions": rows}, ["predictions"]))
    schema = {"anyOf": schemas} if schemas else {"type": "object"}
    return {"description": "Outputs of the signature", "content": {_JSON: {"schema": schema}}}


def _object(title: str, properties: Mapping[str, Any], required: list[str]) -> dict[str, Any]:
    return {
        **({"title": title} if title else {}),
        "type": "object",
        "properties": dict(properties),
        **({"required": required} if required else {}),
    }


def _examples_body() -> dict[str, Any]:
    examples = {"type": "array", "minItems": 1, "items": {"type": "object"}}
    properties = {
        "signature_name": {"type": "string"},
        "context": {"type": "object", "description": "Features that all examples share"},
        "examples": {**examples, "description": "Features by name: a value, or a list of them"},
    }
    schema = _object("Examples", properties, ["examples"])
    return {"required": True, "content": {_JSON: {"schema": schema}}}


def _error_answer() -> dict[str, Any]:
    schema = _object("", {"error": {"type": "string"}}, ["error"])
    return {"description": "What went wrong", "content": {_JSON: {"schema": schema}}}


def _server_paths(metrics_path: str | None) -> dict[str, Any]:
    def get(name: str, summary: str, kind: str) -> dict[str, Any]:
        answers: dict[str, Any] = {"200": {"description": "Answer", "content": {kind: {}}}}
        operation = {"operationId": name, "summary": summary, "tags": [_SERVER_TAG]}
        return {"get": {**operation, "responses": answers}}

    paths = {
        "/healthz": get("healthz", "The process answers", _JSON),
        "/readyz": get("readyz", "Every configured model has an AVAILABLE version", _JSON),
        "/openapi.json": get("openapi", "This document", _JSON),
        "/docs": get("docs", "This document as a page", "text/html"),
    }
    unready = {"description": "The answer names the models without one"}
    paths["/readyz"]["get"]["responses"]["503"] = unready
    if metrics_path is not None:
        paths[metrics_path] = get("metrics", "Metrics for Prometheus", "text/plain")
    return paths
