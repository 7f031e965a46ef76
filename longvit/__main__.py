"""Entry point of `python -m longvit`, the same as `longvit`."""

from longvit.cli.app import main

main()
