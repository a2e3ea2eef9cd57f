"""The protobuf that messages run on: the C backend, and nothing of the one in Python.

Theory: protobuf imports its implementation in Python, with its reader and writer of text, whichever backend is in use;
that is a twentieth of a start.  So that module is put in its place unexecuted, to be loaded if anybody ever asks it for
anything, which the C backend does not.  Importing this module says whether that one is in use, too.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.internal import api_implementation

from fsmux.importing import defer

IN_PYTHON: Final = "google.protobuf.internal.python_message"


if api_implementation.Type() != "upb":
    raise ImportError(
        f"protobuf runs on its {api_implementation.Type()} backend, which is slow and recursive; fsmux needs upb: "
        "install protobuf from a wheel and unset PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"
    )
defer(IN_PYTHON)
