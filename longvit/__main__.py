"""`python -m longvit`, the same as `longvit`."""

from longvit.cli import main

main()
