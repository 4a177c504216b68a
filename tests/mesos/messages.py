"""Mesos' v1 messages in protobuf, by the table of their fields.

A message is a dict, as its JSON has it: names of fields and of enum values, bytes in
base64. So one dict goes into a request of either content type.
"""

import base64
import json
import os
import struct

_TABLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../proto/tests/data/wire.json")
with open(os.environ.get("MESOS_WIRE_TABLE", _TABLE)) as _file:
    _WIRE = json.load(_file)

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
WIRE_TYPES = {"double": FIXED64, "float": FIXED32, "string": LENGTH, "bytes": LENGTH, "message": LENGTH}


class Malformed(Exception):
    """The bytes are no such message."""


def encode(name, message):
    """The bytes of a message of this full name."""
    out = bytearray()
    fields = {field["name"]: field for field in _WIRE["messages"][name]["fields"]}
    for key, value in message.items():
        field = fields[key]
        if _is_map(field):
            values = [{"key": k, "value": v} for k, v in value.items()]
        elif field["label"] == "repeated":
            values = value
        else:
            values = [value]
        for one in values:
            wire_type = WIRE_TYPES.get(field["type"], VARINT)
            out += _varint(field["num"] << 3 | wire_type)
            out += _encode_value(field, one)
    return bytes(out)


def decode(name, data):
    """The message of this full name in the bytes; fields that the table lacks are an error."""
    out = {}
    fields = {field["num"]: field for field in _WIRE["messages"][name]["fields"]}
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        if number not in fields:
            raise Malformed(f"{name} has no field {number}")
        field = fields[number]
        if wire_type != WIRE_TYPES.get(field["type"], VARINT):
            raise Malformed(f"{name}.{field['name']} in wire type {wire_type}")
        raw, at = _read_raw(wire_type, data, at)
        value = _decode_value(field, raw)
        if _is_map(field):
            out.setdefault(field["name"], {})[value.get("key", "")] = value.get("value", {})
        elif field["label"] == "repeated":
            out.setdefault(field["name"], []).append(value)
        else:
            out[field["name"]] = value
    for field in fields.values():
        if field["label"] == "required" and field["name"] not in out:
            raise Malformed(f"{name}.{field['name']} is missing")
    return out


def _is_map(field):
    kind = _WIRE["messages"].get(field.get("type_name"), {})
    return kind.get("options", {}).get("map_entry", False)


def _encode_value(field, value):
    kind = field["type"]
    if kind == "double":
        return struct.pack("<d", value)
    if kind == "float":
        return struct.pack("<f", value)
    if kind == "enum":
        return _varint(_WIRE["enums"][field["type_name"]]["values"][value])
    if kind == "string":
        data = value.encode()
    elif kind == "bytes":
        data = base64.b64decode(value)
    elif kind == "message":
        data = encode(field["type_name"], value)
    else:
        return _varint(int(value))
    return _varint(len(data)) + data


def _decode_value(field, raw):
    kind = field["type"]
    if kind == "double":
        return struct.unpack("<d", raw)[0]
    if kind == "float":
        return struct.unpack("<f", raw)[0]
    if kind == "string":
        return raw.decode()
    if kind == "bytes":
        return base64.b64encode(raw).decode()
    if kind == "message":
        return decode(field["type_name"], raw)
    if kind == "bool":
        return raw != 0
    if kind in ("int32", "int64", "enum") and raw >= 1 << 63:
        raw -= 1 << 64
    if kind == "enum":
        names = {number: name for name, number in _WIRE["enums"][field["type_name"]]["values"].items()}
        return names[raw]
    return raw


def _varint(value):
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data, at):
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise Malformed("a number without an end")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def _read_raw(wire_type, data, at):
    if wire_type == VARINT:
        return _read_varint(data, at)
    if wire_type == LENGTH:
        length, at = _read_varint(data, at)
    else:
        length = 8 if wire_type == FIXED64 else 4
    if at + length > len(data):
        raise Malformed("the bytes end within a field")
    return data[at : at + length], at + length
