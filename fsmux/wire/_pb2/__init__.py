"""Generated from schema/fsmux.proto by schema/generate.py; only ``fsmux.wire.messages`` imports it."""
