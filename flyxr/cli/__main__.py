"""``python -m flyxr.cli``."""

import sys

from flyxr.cli import main

if __name__ == "__main__":
    sys.exit(main())
