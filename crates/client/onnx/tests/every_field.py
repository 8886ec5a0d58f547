"""Writes every-field.onnx: an ONNX model in which every field of every message is set, made from the descriptors of the
`onnx` package of PyPI (1.23.2), so that tests/round_trip.rs has something that our own messages had no part in.

A field that is a message is filled in turn, but a message inside one of its own kind is left empty. A `oneof` gets one
model part for each of its members, where it is in a list, and its first member where it is not. No one runs such a model.

    python3 -m venv venv && venv/bin/pip install onnx==1.23.2 && venv/bin/python crates/client/onnx/tests/every_field.py
"""

from pathlib import Path

import onnx
from google.protobuf.descriptor import FieldDescriptor as Field

NUMBERS = {
    Field.CPPTYPE_INT32: 0,  # a default that is set: it must still be there afterwards
    Field.CPPTYPE_INT64: -7,
    Field.CPPTYPE_UINT64: 2**63,
    Field.CPPTYPE_FLOAT: 0.5,
    Field.CPPTYPE_DOUBLE: -0.25,
    Field.CPPTYPE_ENUM: 1,
}


def value(field):
    if field.cpp_type == Field.CPPTYPE_STRING:
        return field.name.encode() if field.type == Field.TYPE_BYTES else field.name
    return NUMBERS[field.cpp_type]


def fill(message, above=(), member=0):
    """Sets every field of a message; of each `oneof`, its member of that number."""
    kind = message.DESCRIPTOR.full_name
    if kind in above:
        return
    above = (*above, kind)
    for field in message.DESCRIPTOR.fields:
        one_of = field.containing_oneof
        if one_of and one_of.fields[min(member, len(one_of.fields) - 1)] != field:
            continue
        if field.cpp_type != Field.CPPTYPE_MESSAGE:
            if field.is_repeated:
                getattr(message, field.name).extend([value(field)] * 2)
            else:
                setattr(message, field.name, value(field))
        elif field.is_repeated:
            members = max([len(it.fields) for it in field.message_type.oneofs], default=1)
            for number in range(members):
                fill(getattr(message, field.name).add(), above, number)
        else:
            getattr(message, field.name).SetInParent()
            fill(getattr(message, field.name), above)


model = onnx.ModelProto()
fill(model)
path = Path(__file__).with_name("every-field.onnx")
path.write_bytes(model.SerializeToString(deterministic=True))
print(f"{path.name}: {path.stat().st_size} bytes, ONNX {onnx.__version__}")
