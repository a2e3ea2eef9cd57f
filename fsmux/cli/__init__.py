"""The command line: parse, build a configuration, call the library, show what it says, choose an exit code.

Nothing in here moves a byte, and nothing outside of here knows a terminal.  Modules import what they need late: a
command must not wait for the imports of another.
"""
