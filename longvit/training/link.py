"""Messages between two ranks over a TCP connection: lines of JSON."""

import json
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

MAX_MESSAGE = 1 << 16
"""Most bytes of a message."""


class Link:
    """Connection to another rank; a message is a line of JSON, and an empty line is a sign of life."""

    def __init__(self, connection: socket.socket, timeout_s: int) -> None:
        self.connection, self.rest = connection, b""
        connection.settimeout(timeout_s)

    def send(self, message: Mapping[str, object] | None = None) -> None:
        """Send a message or a sign of life; a lost connection is noticed when it is read."""
        with suppress(OSError):
            self.connection.send((json.dumps(message) if message else "").encode() + b"\n")

    def end(self, until: float) -> None:
        """Send nothing more, and read on to the end, since closing with signs of life unread loses the last message."""
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            while (left := until - time.monotonic()) > 0:
                self.connection.settimeout(left)
                if not self.connection.recv(MAX_MESSAGE):
                    return

    def message(self) -> dict[str, Any]:
        """Return the first message, for which it waits.

        Raises:
            OSError: The connection is closed, or no message arrives in time.
            ValueError: Something else than a message has arrived.
        """
        while b"\n" not in self.rest and len(self.rest) < MAX_MESSAGE:
            received = self.connection.recv(MAX_MESSAGE)
            if not received:
                raise ConnectionError("the connection is closed")
            self.rest += received
        line, _, self.rest = self.rest.partition(b"\n")
        if not isinstance(message := json.loads(line), dict):
            raise ValueError("not a message")  # noqa: TRY004 - of the wrong content, like what is not JSON
        return message

    def messages(self) -> list[dict[str, Any]] | None:
        """Return the messages that have arrived; None if the connection is closed."""
        try:
            received = self.connection.recv(MAX_MESSAGE)
        except BlockingIOError:
            return []
        except OSError:
            return None
        *lines, self.rest = (self.rest + received).split(b"\n")
        return [json.loads(line) for line in lines if line] if received or lines else None
