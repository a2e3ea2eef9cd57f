"""The protocol without input or output: frames, decoder, states, credit, messages.

Bytes and values go in, values and bytes come out.  Nothing here opens, waits, or knows which side it is on beyond the
parity of a stream id, so that everything can be tested by calling it.  ``schema/PROTOCOL.md`` is the contract.
"""
