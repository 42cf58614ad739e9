"""Run the command line as `python -m numbasaem`."""

import sys

from numbasaem.cli import main

if __name__ == "__main__":
    sys.exit(main())
