"""Drop what says nothing about the computation, and make sure that all text is text."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.message import Message  # type: ignore[import-untyped]
from onnx import ModelProto, TensorProto

_COMMENTS = (
    "doc_string",
    "metadata_props",
    "quantization_annotation",
    "device_configurations",
    "configuration",
    "training_info",
)


class NotText(ValueError):
    """A name in the message is not UTF-8; protobuf hands such a field out as bytes."""


def strip_comments(model: ModelProto) -> tuple[str, ...]:
    """Clear doc strings, per-node metadata and training graphs; notes where that is a loss.

    The model's own metadata stay. Raises NotText where a name is not UTF-8.
    """
    own = [(entry.key, entry.value) for entry in model.metadata_props]
    notes = ("its training graphs are left out",) if len(model.training_info) else ()
    _strip(model)
    if not all(isinstance(part, str) for pair in own for part in pair):
        raise NotText("metadata")
    for key, value in own:
        model.metadata_props.add(key=key, value=value)
    return notes


def _strip(message: Message) -> None:
    fields = message.DESCRIPTOR.fields_by_name
    for name in _COMMENTS:
        if name in fields:
            message.ClearField(name)
    if isinstance(message, TensorProto):  # its data is not to be copied for a look
        texts = [message.name]
        texts += [text for entry in message.external_data for text in (entry.key, entry.value)]
        _require_text(texts, "tensor")
        return
    for field, value in message.ListFields():
        items = value if field.is_repeated else (value,)
        if field.type == field.TYPE_STRING:
            _require_text(items, field.name)
        elif field.type == field.TYPE_MESSAGE:
            for inner in items:
                _strip(inner)


def _require_text(items: Iterable[object], where: str) -> None:
    if not all(isinstance(item, str) for item in items):
        raise NotText(where)


def keep_foreign_value_info(model: ModelProto) -> None:
    """Forget stored shapes, which inference finds again, but for those only the file knows."""
    foreign = {name for node in model.graph.node if node.domain for name in node.output}
    kept = [
        info.SerializeToString()
        for info in model.graph.value_info
        if info.name in foreign and info.type.HasField("tensor_type")
    ]
    del model.graph.value_info[:]
    for data in kept:
        model.graph.value_info.add().ParseFromString(data)
