"""Multiplexed file sessions over one connection; the public names are re-exported here."""
