"""The public names: all there, all documented, imported only when they are used."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import fsmux


@pytest.mark.parametrize("name", fsmux.__all__)
def test_every_public_name_can_be_had(name: str) -> None:
    value = getattr(fsmux, name)
    if inspect.isclass(value) or inspect.isfunction(value) or inspect.ismodule(value):
        assert (value.__doc__ or "").strip()


def test_the_list_of_names_is_complete() -> None:
    assert len(set(fsmux.__all__)) == len(fsmux.__all__)
    assert set(fsmux.__all__) == set(fsmux._HOMES) | {"__version__", "errors", "events"}


def test_what_is_no_public_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = fsmux.nonsense


def test_star_import() -> None:
    names: dict[str, object] = {}
    exec("from fsmux import *", names)
    assert set(fsmux.__all__) <= set(names)


@pytest.mark.parametrize("name", ["Client", "RemoteFile", "serve", "connect"])
def test_public_methods_are_documented_and_typed(name: str) -> None:
    value = getattr(fsmux, name)
    members = inspect.getmembers(value, inspect.isfunction) if inspect.isclass(value) else [(name, value)]
    for member, function in members:
        if member.startswith("_"):
            continue
        assert (function.__doc__ or "").strip(), f"{name}.{member}"
        assert inspect.signature(function).return_annotation is not inspect.Signature.empty


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(fsmux.__file__).parent / "py.typed").exists()


def test_importing_the_package_is_cheap() -> None:
    """Neither Trio nor what draws on terminals is imported for a version or a usage error."""
    code = "import sys, fsmux; fsmux.__version__; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"trio", "typer", "rich", "google.protobuf", "asyncio"} & set(loaded)


def test_every_error_has_its_code() -> None:
    from fsmux import errors

    classes = [
        value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, errors.FsmuxError)
    ]
    for cls in classes:
        assert isinstance(cls.code, errors.ErrorCode)
        assert isinstance(cls.exit_code, errors.ExitCode)
    for code in errors.ErrorCode:
        assert isinstance(errors.from_code(code, "text"), errors.FsmuxError)
    assert str(errors.from_code(12345, "of a later version")) == "of a later version"
