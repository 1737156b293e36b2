"""Print the page of engines: ``python -m flyxr.engine > docs/engines.md``."""

import sys

from flyxr.engine import page

sys.stdout.write(page())
