"""The table against the specification, and everything that is derived against the table.

The other side of each comparison is `tests/oracle`, which was typed by hand from the
specification, or a tool that is not ours: protoc, the OpenAPI validator.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from openapi_spec_validator import validate

from hupan.client import AsyncClient, Client
from hupan.protocol import Row, export, rows
from hupan.protocol.message import Message, Nothing, fields
from hupan.protocol.wire import protobuf_file
from hupan.server.answers import all_answers, answers
from tests.house import describe
from tests.oracle import Shape, descriptors
from tests.oracle.endpoints import ENDPOINTS, Endpoint

ROOT = Path(__file__).parent.parent
Descriptor = descriptor_pb2.DescriptorProto
FieldDescriptor = descriptor_pb2.FieldDescriptorProto

#: The row that stands for an endpoint of the specification.
ROWS: dict[str, Row[..., Any, Any]] = {
    row.path if row.host.value == "api" else f"{row.host.value}:{row.path}": row for row in rows()
}

#: What changes something, by hand; every other endpoint only reads. A captcha counts as changing,
#: because each call makes a new one.
CHANGING = {
    "/v1/user/captcha",
    "/v1/user/verification-login",
    "/v1/user/email-login",
    "/v1/user/logout",
    "/v1/user/edit-nickname",
    "/v1/user/edit-avatar",
    "/v1/user/notification-info",
    "/v1/user/bing-phone",
    "/v1/user/bing-email",
    "/v1/user/change-phone-check",
    "/v1/user/change-email-check",
    "/v1/user/forget-password",
    "/v1/user/save-user-data",
    "/v1/user/device-offline",
    "/v1/user/save-user-remarks",
    "/v1/user/module-ignore",
    "/v1/user/cancel-user",
    "/v1/user/invite/change-user-invite-code",
    "/v1/verification/get-verification-code",
    "/v1/verification/get-email-verification-code",
}

#: Where this wire is odd, by hand: each place must carry a named quirk. "" is the row as a whole.
ODD = {
    "/v1/user/verification-login": {"request.mobile"},
    "/v1/user/info": {"", "answer.invitation_code"},
    "/v1/user/get-user": {""},
    "/v1/user/edit-nickname": {""},
    "/v1/user/edit-avatar": {""},
    "/v1/user/logout": {"request.device-id"},
    "/v1/user/recommend": {
        "answer.botList.chatType",
        "answer.botList.headcount",
        "answer.botList.introductions",
        "answer.botList.instructions",
    },
    "/v1/user/notification-info": {""},
    "/v1/user/notification-status": {""},
    "/v1/user/gold-coin-increase-decrease-record": {""},
    "/v1/user/bing-phone": {""},
    "/v1/user/bing-email": {""},
    "/v1/user/get-user-data": {"answer.data", "answer.data.update_time"},
    "/v1/user/save-user-remarks": {"request.others"},
    "/v1/verification/get-verification-code": {""},
    "/v1/verification/get-email-verification-code": {""},
    "web:/v1/user/info": {"answer.user.avatarId"},
    "web:/v1/user/homepage": {"", "answer.user.onLineDay"},
}


def each_endpoint() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda one: one.key)


# ---------------------------------------------------------------- rows


def test_the_rows_are_the_endpoints_of_the_specification() -> None:
    assert Counter(
        (row.host.value, method, row.path) for row in rows() for method in row.methods
    ) == Counter(
        (one.host, method, one.path) for one in ENDPOINTS for method in one.methods.split()
    )


@each_endpoint()
def test_a_row_is_called_as_the_specification_says(endpoint: Endpoint) -> None:
    row = ROWS[endpoint.key]
    assert " ".join(row.methods) == endpoint.methods
    assert {"public": "no", "named": "any", "live": "live"}[row.auth.value] == endpoint.token
    assert row.wire.value == endpoint.speaks
    assert row.certainty.value == endpoint.sure
    assert row.safe is (endpoint.key not in CHANGING)
    assert row.summary.endswith(".")


def test_every_row_has_exactly_one_answer() -> None:
    assert set(all_answers()) == set(rows())
    assert len({(row.host, row.path) for row in rows()}) == len(rows())
    # A second answer is refused where it is written, and not found out by a client.
    with pytest.raises(AssertionError, match="two answers"):
        answers(rows()[0])(lambda ctx, ask: ask)
    assert len(all_answers()) == len(ENDPOINTS)


def test_every_row_is_a_call_of_both_clients() -> None:
    for row in rows():
        assert getattr(Client, row.name) is row, describe(row)
        assert getattr(AsyncClient, row.name) is row, describe(row)
    assert len({row.name for row in rows()}) == len(rows())


# ---------------------------------------------------------------- quirks and certainty


def test_every_quirk_has_a_name_and_a_reason() -> None:
    for row in rows():
        for place, quirk in row.quirks:
            where = f"{describe(row)} {place}"
            assert re.fullmatch(r"[a-z][a-z0-9_]+", quirk.name), where
            assert len(quirk.reason) > 20, where
            assert quirk.reason[0].isupper() or quirk.reason[0] in "`*", where
            assert quirk.reason.endswith("."), where


@pytest.mark.parametrize("key", ODD)
def test_every_oddity_of_the_wire_is_a_quirk(key: str) -> None:
    assert ODD[key] <= {place for place, _ in ROWS[key].quirks}


def test_every_row_has_a_certainty() -> None:
    assert {row["certainty"] for row in export.table()} <= {"documented", "observed", "assumed"}
    # The document has 24 endpoints and clients need another 12; what is more is ours.
    counted = Counter(row.certainty.value for row in rows())
    assert (counted["documented"], counted["observed"]) == (24, 12)


# ---------------------------------------------------------------- messages in JSON


@each_endpoint()
def test_a_request_takes_the_keys_of_the_specification(endpoint: Endpoint) -> None:
    row = ROWS[endpoint.key]
    if endpoint.asks is None:
        assert row.request is Nothing
        return
    taken = {
        field.key: field.type
        for field in fields(row.request)
        # What is ours alone says so.
        if "our_extra_key" not in {quirk.name for quirk in field.quirks}
    }
    assert taken == endpoint.asks
    # Whatever a client leaves out has a default.
    row.make()


def test_the_second_key_of_logout_is_taken() -> None:
    (field,) = fields(ROWS["/v1/user/logout"].request)
    assert [quirk.also for quirk in field.quirks] == ["deviceId"]


@each_endpoint()
def test_a_json_answer_has_the_keys_of_the_specification(endpoint: Endpoint) -> None:
    row = ROWS[endpoint.key]
    if endpoint.message is not None:
        return
    assert (shape_of(row.answer) or None) == endpoint.tells


def shape_of(message: type[Message]) -> dict[str, Shape]:
    shape: dict[str, Shape] = {}
    for field in fields(message):
        inner = shape_of(field.message) if field.message else field.type
        shape[field.key] = [inner] if field.repeated else inner
    return shape


# ---------------------------------------------------------------- messages in protobuf


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Descriptor]:
    """What protoc understands of the published file."""
    return descriptors(ROOT / "proto" / "hupan.proto", tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Descriptor]:
    """What protoc understands of the oracle."""
    return descriptors(ROOT / "tests/oracle/yunhu.proto", tmp_path_factory.mktemp("theirs"))


#: A field whose name is unknown, so that only its number and type are compared.
NAMELESS = {("DeviceList", 2)}


def agree(
    ours: dict[str, Descriptor],
    theirs: dict[str, Descriptor],
    mine: str,
    oracle: str,
    judged: set[str],
    *,
    without_status: bool = False,
) -> None:
    """Compare two messages number by number, and the messages inside them."""
    judged.add(mine)
    place = f"{mine} against {oracle}"
    left, right = ({one.number: one for one in side.field} for side in (ours[mine], theirs[oracle]))
    if without_status:
        assert right.pop(1).name == "status"
    assert set(left) == set(right), place
    for number, field in left.items():
        other = right[number]
        assert (field.type, field.label) == (other.type, other.label), f"{place}: {number}"
        assert field.proto3_optional == other.proto3_optional, f"{place}: {number}"
        if (oracle.partition(".")[2], number) not in NAMELESS:
            assert field.name == other.name, f"{place}: {number}"
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            inner, other_inner = field.type_name.strip("."), other.type_name.strip(".")
            agree(ours, theirs, inner, other_inner, judged)


def test_the_published_proto_agrees_with_the_oracle(
    ours: dict[str, Descriptor], theirs: dict[str, Descriptor]
) -> None:
    judged: set[str] = set()
    spoken: set[str] = set()
    for endpoint in ENDPOINTS:
        if endpoint.message is None:
            continue
        row = ROWS[endpoint.key]
        request, answer = endpoint.message
        answer_name = "Envelope" if row.answer is Nothing else f"{row.answer.__name__}Answer"
        agree(ours, theirs, f"hupan.{answer_name}", f"yunhu_oracle.{answer}", judged)
        if request:
            agree(ours, theirs, f"hupan.{row.request.__name__}", f"yunhu_oracle.{request}", judged)
        if row.beside:
            # What is put behind the bytes of a status has a message of its own.
            half = f"hupan.{row.answer.__name__}"
            agree(ours, theirs, half, f"yunhu_oracle.{answer}", judged, without_status=True)
        spoken |= {f"yunhu_oracle.{name}" for name in endpoint.message if name}
    assert judged == set(ours), "a published message was not judged"
    answers_and_requests = {
        name for name in theirs if not name.endswith((".Status", ".Data", "Entry"))
    }
    assert spoken == answers_and_requests, "the oracle has a message nobody speaks"


def test_the_published_proto_says_what_the_codec_does(ours: dict[str, Descriptor]) -> None:
    """The text was written by our own hand-made writer; protoc reads back what the codec uses."""

    def told(message: Descriptor) -> list[tuple[int, str, int, int, str]]:
        return sorted(
            (one.number, one.name, one.type, one.label, one.type_name) for one in message.field
        )

    used = {f"hupan.{entry.name}": told(entry) for entry in protobuf_file().message_type}
    assert used == {name: told(ours[name]) for name in used}
    assert {name for name in ours if name not in used} == {
        f"hupan.{row.answer.__name__}Answer"
        for row in rows()
        if row.wire.value != "json" and row.answer is not Nothing
    }


# ---------------------------------------------------------------- what is derived


@pytest.mark.parametrize("name", ["docs/openapi.json", "docs/protocol.md", "proto/hupan.proto"])
def test_what_is_committed_is_what_the_table_says(name: str) -> None:
    assert set(export.files()) == {"docs/openapi.json", "docs/protocol.md", "proto/hupan.proto"}
    assert (ROOT / name).read_text(encoding="utf-8") == export.files()[name], (
        f"{name} is not what the table says; write it anew with `make docs`"
    )


def test_the_reference_tells_every_row_and_every_quirk() -> None:
    text = (ROOT / "docs/protocol.md").read_text(encoding="utf-8")
    for row in rows():
        assert text.count(f"\n## {describe(row)}\n") == 1
        section = text.partition(f"\n## {describe(row)}\n")[2].partition("\n## ")[0]
        assert f"{' '.join(row.methods)} {row.path}" in section
        for _, quirk in row.quirks:
            assert quirk.reason in section, describe(row)
    headings = {
        re.sub(r"[^\w\- ]", "", line.removeprefix("## ").lower()).replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("## ")
    }
    linked = set(re.findall(r"\]\(#([^)]+)\)", text))
    assert linked == headings


def test_the_reference_names_fields_as_the_wire_does() -> None:
    """A key that stands in the page is a key that may be sent."""
    text = (ROOT / "docs/protocol.md").read_text(encoding="utf-8")
    for endpoint in ENDPOINTS:
        section = text.partition(f"\n## {describe(ROWS[endpoint.key])}\n")[2].partition("\n## ")[0]
        for place in places(endpoint.tells):
            assert f"| `{place}` |" in section, endpoint.key


def places(shape: Shape, prefix: str = "") -> list[str]:
    """The dotted path of every key in a shape."""
    if isinstance(shape, list):
        return places(shape[0], prefix)
    if not isinstance(shape, dict):
        return []
    found = []
    for key, inner in shape.items():
        found += [prefix + key, *places(inner, f"{prefix}{key}.")]
    return found


def test_the_openapi_document_is_valid_and_whole() -> None:
    document = json.loads((ROOT / "docs/openapi.json").read_text(encoding="utf-8"))
    validate(document)
    told = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
    }
    assert told == {
        (method, ("" if one.host == "api" else f"/{one.host}") + one.path)
        for one in ENDPOINTS
        for method in one.methods.split()
    }
    used = json.dumps(document["paths"]) + json.dumps(document["components"])
    for name in document["components"]["schemas"]:
        assert f'"#/components/schemas/{name}"' in used, f"nothing uses {name}"


@each_endpoint()
def test_the_openapi_document_has_the_keys_of_the_specification(endpoint: Endpoint) -> None:
    document = json.loads((ROOT / "docs/openapi.json").read_text(encoding="utf-8"))
    path = endpoint.path if endpoint.host == "api" else f"/{endpoint.host}{endpoint.path}"
    for method in endpoint.methods.split():
        told = document["paths"][path][method.lower()]
        assert bool(told["security"]) is (endpoint.token != "no")
        if endpoint.asks is None:
            assert "requestBody" not in told
            assert "parameters" not in told
        elif method == "GET":
            assert {one["name"] for one in told["parameters"]} == set(endpoint.asks)
            assert {one["in"] for one in told["parameters"]} == {"query"}
        else:
            asked = resolved(document, told["requestBody"]["content"]["application/json"]["schema"])
            assert set(endpoint.asks) <= set(asked["properties"])
        content = told["responses"]["200"]["content"]
        assert set(content) == {
            "json": {"application/json"},
            "protobuf": {"application/x-protobuf"},
        }.get(endpoint.speaks, {"application/json", "application/x-protobuf"})
        if endpoint.message is None:
            done = content["application/json"]["schema"]["anyOf"][0]
            assert set(done["properties"]) == (
                {"code", "data", "msg"} if endpoint.tells else {"code", "msg"}
            )
            if endpoint.tells:
                in_document(document, done["properties"]["data"], endpoint.tells)


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return document["components"]["schemas"][name] if name else schema


def in_document(document: dict[str, Any], schema: dict[str, Any], shape: Shape) -> None:
    schema = resolved(document, schema)
    if isinstance(shape, dict):
        assert schema["type"] == "object"
        assert set(schema["properties"]) == set(shape)
        for key, inner in shape.items():
            in_document(document, schema["properties"][key], inner)
    elif isinstance(shape, list):
        assert schema["type"] == "array"
        in_document(document, schema["items"], shape[0])
    else:
        assert schema["type"] == {str: "string", int: "integer", float: "number"}[shape]


# ---------------------------------------------------------------- the command


def hupan(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", "from hupan.cli import main; main()", "protocol", *words],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_the_command_prints_the_rows_as_json() -> None:
    told = json.loads(hupan("--json"))
    assert isinstance(told, list)
    assert len(told) == len(ENDPOINTS)
    by_key = {
        one["path"] if one["host"] == "api" else f"{one['host']}:{one['path']}": one for one in told
    }
    for endpoint in ENDPOINTS:
        row = by_key[endpoint.key]
        assert {
            "path",
            "method",
            "request",
            "answer",
            "auth",
            "safe",
            "certainty",
            "quirks",
        } <= set(row)
        assert row["method"] == endpoint.methods.split()
        assert row["certainty"] == endpoint.sure
        assert row["safe"] is (endpoint.key not in CHANGING)
        if endpoint.asks is None:
            assert row["request"] is None
        else:
            assert set(endpoint.asks) <= {one["key"] for one in row["request"]["fields"]}
        assert ODD.get(endpoint.key, set()) <= {one["at"] for one in row["quirks"]}
        for quirk in row["quirks"]:
            assert set(quirk) == {"at", "name", "reason"}
        if endpoint.message and endpoint.asks:
            assert all(one["number"] > 1 for one in row["request"]["fields"])


def test_the_command_prints_the_quirks_and_the_files(tmp_path: Path) -> None:
    quirks = hupan("--quirks")
    for row in rows():
        for place, quirk in row.quirks:
            assert f"{row.path}  {place}  {quirk.name}: {quirk.reason}\n" in quirks
    hupan("--write", str(tmp_path))
    for name, text in export.files().items():
        assert (tmp_path / name).read_text(encoding="utf-8") == text
