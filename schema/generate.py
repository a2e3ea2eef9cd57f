"""Make the Python code for schema/fsmux.proto: ``python schema/generate.py [directory]`` (``make proto`` calls it).

What it writes is committed, so that neither an installation nor a test run needs a protobuf compiler, and a test
compiles the schema again and compares, so that it cannot grow stale.  Generated code loads with the protobuf it was
made for and later ones, never with earlier ones.  So the compiler pinned here decides the lowest version that fsmux
supports; where another one is installed, the pinned one is fetched into an environment that is thrown away.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

COMPILER = "1.73.1"
"""The version of grpcio-tools that generates: it makes code for protobuf 6.31 and later."""

SCHEMA = Path(__file__).resolve().parent
TARGET = SCHEMA.parent / "fsmux" / "wire" / "_pb2"


def generate(target: Path) -> None:
    """Write ``fsmux_pb2.py`` and ``fsmux_pb2.pyi`` into ``target``, which must exist."""
    from grpc_tools import protoc  # type: ignore[import-untyped]  # it has no stubs

    outputs = [f"--python_out={target}", f"--pyi_out={target}"]
    if protoc.main(["protoc", f"--proto_path={SCHEMA}", *outputs, "fsmux.proto"]) != 0:
        raise SystemExit("schema/fsmux.proto: protoc failed; what it said is above")
    stub = target / "fsmux_pb2.pyi"  # protoc writes a bare Mapping, which strict type checking objects to
    stub.write_text("# mypy: disable-error-code=type-arg\n" + stub.read_text())


def main(target: Path) -> None:
    if version("grpcio-tools") == COMPILER:
        generate(target)
        return
    with tempfile.TemporaryDirectory() as environment:
        python = Path(environment) / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", f"grpcio-tools=={COMPILER}"], check=True)
        subprocess.run([python, __file__, target], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET)
