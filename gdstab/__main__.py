"""`python -m gdstab` and the command `gdstab`."""

import sys

from gdstab.cli import main

if __name__ == "__main__":
    sys.exit(main())
