"""Many ordered, flow-controlled streams over one connection.

General layout, downwards: ``connection`` (handshake, keepalive, the end) · ``reader`` and ``writer`` (its two tasks) ·
``table`` (all its streams) · ``stream`` (what users of a connection hold) · ``outbox`` (which frame goes next) ·
``buffers`` (where received bytes wait for the disk) · ``transport`` (the only package that touches sockets).
"""
