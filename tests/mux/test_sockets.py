"""What is asked of the kernel for a connection."""

from __future__ import annotations

import socket
import sys

import pytest

from fsmux.mux.transport import SocketTransport, tuning

from .kit import socket_pair

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="these options are Linux's")


def algorithm(sock: socket.socket) -> bytes:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")


async def test_the_congestion_control_is_ours_where_it_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    near, far = socket_pair("tcp")
    with near, far:
        monkeypatch.setattr(tuning, "CONGESTION_CONTROL", b"reno")  # which no kernel lacks or forbids
        SocketTransport(near, "peer")
        assert algorithm(near) == b"reno"


async def test_where_it_is_not_there_the_kernels_choice_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    near, far = socket_pair("tcp")
    with near, far:
        before = algorithm(near)
        monkeypatch.setattr(tuning, "CONGESTION_CONTROL", b"no-such-thing")
        SocketTransport(near, "peer")
        assert algorithm(near) == before


@pytest.mark.parametrize("option", [socket.SO_SNDBUF, socket.SO_RCVBUF])
async def test_the_kernel_sizes_the_buffers(option: int) -> None:
    near, far = socket_pair("tcp")
    with near, far:
        before = near.getsockopt(socket.SOL_SOCKET, option)
        SocketTransport(near, "peer")
        assert near.getsockopt(socket.SOL_SOCKET, option) == before
