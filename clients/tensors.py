"""Convert Python and NumPy values to and from `TensorProto`, without TensorFlow.

NumPy is imported only if arrays are used.
"""

from shortlist.clients._codecs.tensors import from_tensor_proto
from shortlist.clients._codecs.values import is_array, to_tensor_proto

__all__ = ["from_tensor_proto", "is_array", "to_tensor_proto"]
