"""A server that says whatever it likes, byte by byte."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Talk = Callable[[socket.socket, threading.Event], None]
"""What the server does with a connection; the event is set when it shall stop."""


@contextmanager
def serving(talk: Talk) -> Iterator[str]:
    """The address of a server that has ``talk`` with each who calls."""
    stop = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            talk(connection, stop)

    def listen() -> None:
        with suppress(OSError):
            while not stop.is_set():
                connection, _ = listener.accept()
                threads.append(threading.Thread(target=answer, args=(connection,), daemon=True))
                threads[-1].start()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stop.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for each in (thread, *threads):
            each.join(10)


def saying(*parts: bytes) -> Talk:
    """Say this and hang up."""

    def talk(connection: socket.socket, stop: threading.Event) -> None:
        for part in parts:
            connection.sendall(part)

    return talk


def without_end(head: bytes, block: bytes, pause: float = 0.0) -> Talk:
    """Say the head, then the block again and again, with pauses, until the caller hangs up."""

    def talk(connection: socket.socket, stop: threading.Event) -> None:
        connection.sendall(head)
        while not stop.wait(pause):
            connection.sendall(block)

    return talk
