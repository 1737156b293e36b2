"""``python -m flyxr.cli``."""

import sys

from flyxr.cli import main

sys.exit(main())
