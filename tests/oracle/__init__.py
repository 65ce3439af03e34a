"""The judge of our table, which shares no line with it.

`yunhu.proto` and `endpoints` are typed by hand from the specification. Answers are opened here
by classes that protoc makes of the former and by a JSON reader that forgives nothing; requests
are bytes that the tests write out.
"""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx2
from google.protobuf import descriptor_pb2
from google.protobuf.message import Message as Protobuf
from google.protobuf.unknown_fields import UnknownFieldSet

__all__ = [
    "Shape",
    "compiled",
    "descriptors",
    "in_shape",
    "opened",
    "read_json",
    "same",
    "sound",
]

HERE = Path(__file__).parent

#: The shape of a JSON value: a type, a list of one shape, or an object with exactly these keys.
Shape = Any

_compiled: ModuleType | None = None


# ---------------------------------------------------------------- protobuf


def protoc(proto: Path, *options: str) -> None:
    """Run the real compiler; what it says on failure is the failure of the test."""
    done = subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{proto.parent}", *options, proto.name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr


def compiled(folder: Path) -> ModuleType:
    """The classes that protoc makes of the oracle.

    They live in the default pool under a package of their own, while the server keeps its
    messages in a pool of its own; and the module is loaded by its path, so that no folder of
    generated code is ever on the import path.
    """
    global _compiled
    if _compiled is None:
        protoc(HERE / "yunhu.proto", f"--python_out={folder}")
        spec = importlib.util.spec_from_file_location(
            "tests.oracle.yunhu_pb2", folder / "yunhu_pb2.py"
        )
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        _compiled = module
    return _compiled


def descriptors(proto: Path, folder: Path) -> dict[str, descriptor_pb2.DescriptorProto]:
    """What protoc understands of a file: full name of each message → its description."""
    out = folder / f"{proto.stem}.bin"
    protoc(proto, f"--descriptor_set_out={out}")
    found: dict[str, descriptor_pb2.DescriptorProto] = {}

    def take(prefix: str, entries: Any) -> None:
        for entry in entries:
            found[f"{prefix}.{entry.name}"] = entry
            take(f"{prefix}.{entry.name}", entry.nested_type)

    for file in descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file:
        take(file.package, file.message_type)
    return found


def opened(kind: Any, response: httpx2.Response) -> Any:
    """Open a protobuf answer strictly: known fields only, each of its declared type."""
    sound(response, "application/x-protobuf")
    message = kind.FromString(response.content)
    nothing_unknown(message)
    assert message.status.number > 0
    return message


def nothing_unknown(message: Protobuf) -> None:
    """A field of another number or of another wire type would be among the unknown ones."""
    unknown = [(one.field_number, one.wire_type) for one in UnknownFieldSet(message)]
    assert not unknown, f"{message.DESCRIPTOR.full_name} carries unknown fields {unknown}"
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else [value]:
                nothing_unknown(inner)


# ---------------------------------------------------------------- HTTP and JSON


def sound(response: httpx2.Response, kind: str) -> None:
    """What every answer of the application has, whatever it says."""
    assert response.status_code == 200, (response.status_code, response.content)
    assert response.headers.get_list("content-type") == [kind]
    assert response.headers.get_list("cache-control") == ["no-store"]


def read_json(response: httpx2.Response) -> Any:
    """Read a JSON answer and its envelope strictly."""
    sound(response, "application/json")
    value = json.loads(
        response.content.decode("utf-8"),
        object_pairs_hook=_no_key_twice,
        parse_constant=_no_such_number,
    )
    assert type(value) is dict, value
    assert type(value.get("code")) is int, value
    assert type(value.get("msg")) is str, value
    if value["code"] == 1:
        assert set(value) <= {"code", "data", "msg"}, value
        assert value["msg"] == "success"
    else:
        # Strict clients take a `data` that is there for a success.
        assert set(value) == {"code", "msg"}, value
        assert value["code"] != 0
        assert value["msg"]
    return value


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    assert len(found) == len(pairs), f"a key stands twice in {pairs}"
    return found


def _no_such_number(text: str) -> Any:
    raise AssertionError(f"{text} is no JSON number")


def same(found: Any, expected: Any, place: str = "") -> None:
    """Equal, and of equal types all the way down: `1`, `1.0`, `True` and `"1"` are four things."""
    assert type(found) is type(expected), f"{place}: {found!r} is not {expected!r}"
    if isinstance(expected, dict):
        assert set(found) == set(expected), f"{place}: {sorted(found)} not {sorted(expected)}"
        for key, value in expected.items():
            same(found[key], value, f"{place}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), f"{place}: {found!r} is not {expected!r}"
        for index, value in enumerate(expected):
            same(found[index], value, f"{place}[{index}]")
    else:
        assert found == expected, f"{place}: {found!r} is not {expected!r}"


def in_shape(value: Any, shape: Shape, place: str = "data") -> None:
    """Exactly the keys of a shape, nothing null, every number and text what it should be."""
    if isinstance(shape, dict):
        assert type(value) is dict, f"{place}: {value!r}"
        assert set(value) == set(shape), f"{place}: {sorted(value)} not {sorted(shape)}"
        for key, inner in shape.items():
            in_shape(value[key], inner, f"{place}.{key}")
    elif isinstance(shape, list):
        assert type(value) is list, f"{place}: {value!r}"
        for index, item in enumerate(value):
            in_shape(item, shape[0], f"{place}[{index}]")
    elif shape is float:
        # An amount is any JSON number with at most two decimals.
        assert type(value) in (int, float), f"{place}: {value!r}"
        assert math.isfinite(value), f"{place}: {value!r}"
        assert round(value, 2) == value, f"{place}: {value!r}"
    else:
        assert type(value) is shape, f"{place}: {value!r} is no {shape.__name__}"
        if shape is int:
            assert abs(value) < 2**53, f"{place}: {value!r} is more than JavaScript can count to"
