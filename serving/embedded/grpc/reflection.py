"""gRPC's server reflection: the services and messages under TensorFlow Serving's names.

The messages of `clients/wire` have a package of their own, so that they can live in one process
with TensorFlow's. Their descriptors are copied under the packages that the real server has.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import SERVICE_NAME, ReflectionServicer

from shortlist.clients.wire.methods import HEALTH_WATCH, Method
from shortlist.serving.embedded.api.errors import Code, StatusError

__all__ = ["PATHS", "Reflection"]

# The messages of both versions are the same.
_SERVICES: Final = (SERVICE_NAME, "grpc.reflection.v1.ServerReflection")
PATHS: Final = tuple(f"/{service}/ServerReflectionInfo" for service in _SERVICES)
_MAX_BYTES: Final = 64 * 1024  # of a request, which is a name
_OWN: Final = "shortlist.wire"
_SOURCES: Final = "shortlist/clients/wire/"
_FOLDER: Final = "shortlist/reflection"
_SERVING: Final = "tensorflow.serving"
_PACKAGES: Final = {  # by file; the others are TensorFlow Serving's
    "example.proto": "tensorflow",
    "health.proto": "grpc.health.v1",
    "signature.proto": "tensorflow",
    "tensor.proto": "tensorflow",
}


class Reflection:
    """Answers reflection requests, as serialised messages.

    Args:
        methods: Methods of the server.
    """

    def __init__(self, methods: Collection[Method]) -> None:
        services = sorted({method.service for method in methods})
        self._servicer = ReflectionServicer((*services, *_SERVICES), pool=_pool(methods))

    def answer(self, data: bytes) -> bytes:
        """Return the answer to one request of a stream.

        Raises:
            StatusError: The request is larger than any name.
            DecodeError: It is not a request.
        """
        if len(data) > _MAX_BYTES:
            raise StatusError(
                Code.RESOURCE_EXHAUSTED,
                f"a reflection request of {len(data)} bytes is more than {_MAX_BYTES}",
            )
        request = reflection_pb2.ServerReflectionRequest.FromString(data)
        answers: Iterator[Any] = self._servicer.ServerReflectionInfo(iter([request]), None)
        answer: bytes = next(answers).SerializeToString()
        return answer


def _pool(methods: Collection[Method]) -> descriptor_pool.DescriptorPool:
    """Return the descriptors of the services and of everything that they need."""
    files: dict[str, Any] = {}
    for method in methods:
        for message in (method.request, method.response):
            _collect(message.DESCRIPTOR.file, files)
    _collect(reflection_pb2.DESCRIPTOR, files)
    protos = [_copy(descriptor) for descriptor in files.values()]
    names: dict[str, str] = {}
    for proto in protos:
        kinds = [kind.name for kind in proto.message_type] + [kind.name for kind in proto.enum_type]
        names |= {f".{proto.package}.{kind}": f".{_package(proto)}.{kind}" for kind in kinds}
    pool = descriptor_pool.DescriptorPool()
    for proto in protos:
        pool.AddSerializedFile(_renamed(proto, names).SerializeToString())
    pool.AddSerializedFile(_newer_reflection().SerializeToString())
    for name in sorted({method.service for method in methods}):
        rpcs = [method for method in methods if method.service == name]
        pool.AddSerializedFile(_service(name, rpcs, names).SerializeToString())
    return pool


def _newer_reflection() -> descriptor_pb2.FileDescriptorProto:
    """Return the file of reflection v1, whose messages are those of v1alpha."""
    text = text_format.MessageToString(_copy(reflection_pb2.DESCRIPTOR))
    text = text.replace("v1alpha", "v1")
    return text_format.Parse(text, descriptor_pb2.FileDescriptorProto())


def _collect(descriptor: Any, files: dict[str, Any]) -> None:
    """Add a file after the files that it needs."""
    for dependency in descriptor.dependencies:
        _collect(dependency, files)
    files.setdefault(descriptor.name, descriptor)


def _copy(descriptor: Any) -> descriptor_pb2.FileDescriptorProto:
    return descriptor_pb2.FileDescriptorProto.FromString(descriptor.serialized_pb)


def _package(proto: descriptor_pb2.FileDescriptorProto) -> str:
    if proto.package != _OWN:
        return proto.package
    return _PACKAGES.get(proto.name.rpartition("/")[2], _SERVING)


def _file_name(name: str) -> str:
    return f"{_FOLDER}/{name.rpartition('/')[2]}" if name.startswith(_SOURCES) else name


def _renamed(
    proto: descriptor_pb2.FileDescriptorProto, names: Mapping[str, str]
) -> descriptor_pb2.FileDescriptorProto:
    """Return a file under its new name and package, with the new names of all types."""
    for reference in _references(proto):
        reference.type_name = _new_name(reference.type_name, names)
    proto.package = _package(proto)
    proto.name = _file_name(proto.name)
    proto.dependency[:] = [_file_name(name) for name in proto.dependency]
    return proto


def _new_name(name: str, names: Mapping[str, str]) -> str:
    """Return the new name of a type, which may be nested in another."""
    outer = name
    while outer not in names:
        outer = outer.rpartition(".")[0]
    return names[outer] + name[len(outer) :]


def _references(
    proto: descriptor_pb2.FileDescriptorProto,
) -> Iterator[descriptor_pb2.FieldDescriptorProto]:
    """Yield the fields whose type is a message or an enum."""
    pending = [*proto.message_type]
    while pending:
        message = pending.pop()
        pending += message.nested_type
        yield from (field for field in message.field if field.type_name)


def _service(
    name: str, methods: Iterable[Method], names: Mapping[str, str]
) -> descriptor_pb2.FileDescriptorProto:
    package, _, short = name.rpartition(".")
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{_FOLDER}/{short}.proto", package=package, syntax="proto3"
    )
    service = file.service.add(name=short)
    for method in methods:
        asked, answered = method.request.DESCRIPTOR, method.response.DESCRIPTOR
        service.method.add(
            name=method.name,
            input_type=names[f".{asked.full_name}"],
            output_type=names[f".{answered.full_name}"],
            server_streaming=method is HEALTH_WATCH,
        )
        needed = {_file_name(asked.file.name), _file_name(answered.file.name)}
        file.dependency.extend(sorted(needed - set(file.dependency)))
    return file
