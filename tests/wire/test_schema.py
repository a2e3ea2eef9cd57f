"""The schema, the code generated from it and the words about it say the same."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from fsmux.errors import ErrorCode
from fsmux.wire.decoder import Decoder
from fsmux.wire.frames import Cmd, Frame, encode
from fsmux.wire.messages import COMMANDS, decode

SCHEMA = Path(__file__).parents[2] / "schema"
pytestmark = pytest.mark.skipif(not SCHEMA.exists(), reason="the schema is not part of an installation")


def load_generator() -> Any:
    spec = importlib.util.spec_from_file_location("generate", SCHEMA / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def schema_in(code: Path) -> bytes:
    """The serialised schema that generated code carries: the same whichever compiler made it."""
    literals = [
        node.args[0].value
        for node in ast.walk(ast.parse(code.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "AddSerializedFile"
        and isinstance(node.args[0], ast.Constant)
    ]
    assert len(literals) == 1
    assert isinstance(literals[0], bytes)
    return literals[0]


def test_generated_code_is_not_stale(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools")
    generator = load_generator()
    generator.generate(tmp_path)
    assert schema_in(generator.TARGET / "fsmux_pb2.py") == schema_in(tmp_path / "fsmux_pb2.py"), "run: make proto"
    if version("grpcio-tools") == generator.COMPILER:
        for name in ("fsmux_pb2.py", "fsmux_pb2.pyi"):
            assert (generator.TARGET / name).read_text() == (tmp_path / name).read_text(), "run: make proto"


def test_generated_code_needs_no_newer_protobuf_than_the_project_says() -> None:
    code = (load_generator().TARGET / "fsmux_pb2.py").read_text()
    made_for = re.search(r"Protobuf Python Version: (\d+)\.(\d+)", code)
    assert made_for is not None
    project = tomllib.loads((SCHEMA.parent / "pyproject.toml").read_text())["project"]
    assert f"protobuf>={made_for[1]}.{made_for[2]}" in project["dependencies"]


def test_no_message_contains_itself() -> None:
    """So that no payload can make a parser recurse deeper than the schema is."""
    from fsmux.wire._pb2 import fsmux_pb2

    def depth(descriptor: Any, above: tuple[str, ...] = ()) -> int:
        assert descriptor.name not in above
        inner = [field.message_type for field in descriptor.fields if field.message_type is not None]
        return 1 + max((depth(one, (*above, descriptor.name)) for one in inner), default=0)

    assert max(map(depth, fsmux_pb2.DESCRIPTOR.message_types_by_name.values())) == 4


# ---- PROTOCOL.md ----------------------------------------------------------------------------------------------------


def protocol() -> str:
    return (SCHEMA / "PROTOCOL.md").read_text()


def test_every_command_is_in_the_table_with_its_number() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| ([A-Z_]+) \|", protocol(), re.MULTILINE))
    assert {int(number): name for number, name in rows.items()} == {int(cmd): cmd.name for cmd in Cmd}


def test_every_error_code_is_in_the_table_with_its_number() -> None:
    rows = re.findall(r"^\| (\d+) \| `([A-Z_]+)` \|", protocol(), re.MULTILINE)
    assert {int(number): name for number, name in rows} == {int(code): code.name for code in ErrorCode}


def examples() -> list[tuple[str, bytes]]:
    """The worked examples: ``hex:`` blocks, whose text after ``;`` is comment, with the frame they show."""
    found = []
    for title, block in re.findall(r"\*\*Example: (.+?)\*\*.*?```hex\n(.*?)```", protocol(), re.DOTALL):
        found.append((title, bytes.fromhex("".join(line.partition(";")[0] for line in block.splitlines()))))
    return found


def test_worked_examples_are_frames() -> None:
    shown = dict(examples())
    assert list(shown) == ["PING", "STAT of `docs/a.txt` on stream 1", "the DATA bytes `hello` on stream 3, the last"]
    for data in shown.values():
        (frame,) = Decoder(lambda header: 100).feed(data)
        payload = b"".join(frame.payload) if isinstance(frame.payload, tuple) else frame.payload
        assert isinstance(payload, bytes)
        again = Frame(frame.cmd, frame.stream_id, payload, frame.flags)
        assert encode(again)[0] + payload == data
        if frame.cmd in COMMANDS:
            decode(frame.cmd, payload)
