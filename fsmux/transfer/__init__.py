"""One file from the side that has it to the side that lacks it.

``sender`` and ``receiver`` are the two halves of one conversation (``schema/PROTOCOL.md``, *Transfers*).  Upload and
download run the same two functions with the roles swapped.  ``assembly`` decides when a chunk is whole and right,
``disk`` moves blocking work into threads, ``digests`` remembers what a source's chunks came to.
"""
