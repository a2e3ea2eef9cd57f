"""The only package that touches sockets: a connection as something that receives into buffers and pumps an outbox.

Theory: a transport knows nothing of streams.  It is given buffers to fill, and an :class:`Outbox` to empty.
"""

from fsmux.mux.transport.base import Transport
from fsmux.mux.transport.dial import accepted, dial_tcp, dial_unix
from fsmux.mux.transport.sockets import SocketTransport
from fsmux.mux.transport.streams import StreamTransport, memory_pair

__all__ = ["SocketTransport", "StreamTransport", "Transport", "accepted", "dial_tcp", "dial_unix", "memory_pair"]
