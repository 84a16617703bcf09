"""``python -m pinhole`` is the ``pinhole`` command."""

import sys

from pinhole.cli import main

if __name__ == "__main__":
    sys.exit(main())
