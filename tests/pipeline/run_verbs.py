"""Run command lines, one after the other, in one process of a machine and a user whose names are easily found."""

import json
import socket
import sys

HOST = "host-of-alice"


def main(commands: list[list[str]]) -> None:
    """Run all; the first that does not end with 0 ends this."""
    socket.gethostname = lambda: HOST
    from longvit.cli.app import run_command

    for command in commands:
        sys.argv = ["/home/alice-the-user/bin/longvit", *command]
        assert run_command(command) == 0, command


if __name__ == "__main__":  # processes that a verb starts read this file, too
    main(json.loads(sys.stdin.read()))
