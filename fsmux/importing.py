"""Libraries that load more than they need, loaded without it: a small transfer is over in less time than that takes.

Theory: a library's own modules are taken as they are; what is left out is what surrounds them.  Anybody else in this
process who imports the same library gets all of it, as ever.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import LazyLoader, find_spec, module_from_spec
from types import ModuleType

_alone: dict[str, ModuleType] = {}
"""What was imported without its package."""


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


class _Absent(ModuleType):
    """A module that has every name, and nothing behind any of them."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def without_parts(name: str, *parts: str) -> ModuleType:
    """The package ``name``, imported without modules of it that it only passes on: what it takes from these is None.

    That holds for this process, so it is for those who have one of their own; whoever imports one of the parts itself
    has it.  If the package was imported before, or cannot be imported without them, it is whole.
    """
    if name not in sys.modules:
        loaded = set(sys.modules)
        absent = {part: _Absent(part) for part in parts}
        sys.modules.update(absent)
        try:
            return import_module(name)
        except Exception:  # whatever a later release makes of None
            for each in [each for each in sys.modules if each not in loaded and each.partition(".")[0] == name]:
                del sys.modules[each]
        finally:
            for part in absent.keys() & sys.modules.keys():
                del sys.modules[part]
    return import_module(name)


def without_package(name: str, *unused: str) -> ModuleType:
    """The module ``name`` of a package, imported without executing what the package does when it is imported itself.

    If nobody has imported that yet, this copy of it and of what it imports of its package is for the caller alone; and
    modules among ``unused`` that are not loaded are not loaded for it: what it takes from them is None.
    Raises ImportError if there is no such module.
    """
    package = name.partition(".")[0]
    if (module := _alone.get(name)) is not None:
        return module
    spec = None if package in sys.modules else find_spec(package)
    if spec is None:
        return import_module(name)
    absent = [each for each in unused if each not in sys.modules]
    sys.modules.update({each: _Absent(each) for each in absent})
    sys.modules[package] = module_from_spec(spec)  # it only says where its modules are
    try:
        module = _alone[name] = import_module(name)
    finally:
        for each in [*absent, *[each for each in sys.modules if each.partition(".")[0] == package]]:
            del sys.modules[each]
    return module
