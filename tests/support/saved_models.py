"""A small SavedModel, written without the seconds that importing TensorFlow takes.

Signature `serving_default` answers `x / 2 + addend`; `slow` multiplies `n x n` matrices, so
that a request takes as long as a test needs.
"""

from pathlib import Path

from google.protobuf import text_format

__all__ = ["write_saved_model"]

_TEMPLATE = """
saved_model_schema_version: 1
meta_graphs {
  meta_info_def { tags: "serve" tensorflow_version: "2.20.0" }
  graph_def {
    versions { producer: 2129 }
    %(nodes)s
  }
  signature_def { key: "serving_default" value {
    inputs { key: "x" value { name: "x:0" dtype: DT_FLOAT tensor_shape { dim { size: -1 } } } }
    outputs { key: "y" value { name: "y:0" dtype: DT_FLOAT tensor_shape { dim { size: -1 } } } }
    method_name: "tensorflow/serving/predict" } }
  signature_def { key: "slow" value {
    inputs { key: "n" value { name: "n:0" dtype: DT_INT32 tensor_shape { } } }
    outputs { key: "sum" value { name: "sum:0" dtype: DT_FLOAT tensor_shape { } } }
    method_name: "tensorflow/serving/predict" } }
}
"""


def _node(name: str, op: str, *inputs: str, **attributes: str) -> str:
    parts = [f'node {{ name: "{name}" op: "{op}"']
    parts += [f' input: "{item}"' for item in inputs]
    parts += [f' attr {{ key: "{key}" value {{ {value} }} }}' for key, value in attributes.items()]
    return "".join(parts) + " }\n"


def _constant(name: str, dtype: str, values: str, shape: str = "") -> str:
    tensor = f"tensor {{ dtype: {dtype} tensor_shape {{ {shape} }} {values} }}"
    return _node(name, "Const", dtype=f"type: {dtype}", value=tensor)


def _nodes(addend: float) -> str:
    real, whole = "type: DT_FLOAT", "type: DT_INT32"
    batch = "shape { dim { size: -1 } }"
    return "".join(
        (
            _node("x", "Placeholder", dtype=real, shape=batch),
            _constant("half", "DT_FLOAT", "float_val: 0.5"),
            _constant("addend", "DT_FLOAT", f"float_val: {addend}"),
            _node("halved", "Mul", "x", "half", T=real),
            _node("y", "AddV2", "halved", "addend", T=real),
            _node("n", "Placeholder", dtype=whole, shape="shape { }"),
            _node("dimensions", "Pack", "n", "n", T=whole, N="i: 2", axis="i: 0"),
            _node("matrix", "Fill", "dimensions", "half", T=real, index_type=whole),
            _node("product", "MatMul", "matrix", "matrix", T=real),
            _constant("axes", "DT_INT32", "int_val: 0 int_val: 1", "dim { size: 2 }"),
            _node("sum", "Sum", "product", "axes", T=real, Tidx=whole, keep_dims="b: false"),
        )
    )


def write_saved_model(folder: Path, *, addend: float) -> None:
    """Write the SavedModel into `folder`, complete when the folder appears."""
    from shortlist.serving.embedded.runtime import _tf

    message = _tf.saved_model_pb2.SavedModel()
    text_format.Parse(_TEMPLATE % {"nodes": _nodes(addend)}, message)
    staging = folder.with_name(f".staging-{folder.name}")
    staging.mkdir(parents=True)
    (staging / "saved_model.pb").write_bytes(message.SerializeToString())
    staging.rename(folder)
