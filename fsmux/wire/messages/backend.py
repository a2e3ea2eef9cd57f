"""The protobuf that messages run on: the C backend, and nothing of the one in Python.

Theory: protobuf imports its implementation in Python, with its reader and writer of text, whichever backend is in use;
that is a twentieth of a start.  So that module is put in its place unexecuted, to be loaded if anybody ever asks it for
anything, which the C backend does not.  Importing this module says whether that one is in use, too.
"""

from __future__ import annotations

import sys
from importlib.util import LazyLoader, find_spec, module_from_spec
from typing import Final

from google.protobuf.internal import api_implementation

IN_PYTHON: Final = "google.protobuf.internal.python_message"


def defer(name: str) -> None:
    """Have the module ``name`` loaded when something of it is first used; at once, or never, if it is or cannot be."""
    spec = None if name in sys.modules else find_spec(name)
    if spec is None or spec.loader is None:
        return
    spec.loader = LazyLoader(spec.loader)
    sys.modules[name] = module = module_from_spec(spec)
    spec.loader.exec_module(module)
    package, _, child = name.rpartition(".")
    setattr(sys.modules[package], child, module)  # or looking for it there would load it


if api_implementation.Type() != "upb":
    raise ImportError(
        f"protobuf runs on its {api_implementation.Type()} backend, which is slow and recursive; fsmux needs upb: "
        "install protobuf from a wheel and unset PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"
    )
defer(IN_PYTHON)
