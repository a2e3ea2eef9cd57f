"""Many ordered, flow-controlled streams over one connection.

General layout, downwards: ``connection`` (one reader task, one writer task, keepalive) · ``table`` (all its streams) ·
``stream`` (what users of a connection hold) · ``outbox`` (decides which frame goes next) · ``buffers`` (where received
bytes wait for the disk) · ``transport`` (the only module that touches sockets).
"""
