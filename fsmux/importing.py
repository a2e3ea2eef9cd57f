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
