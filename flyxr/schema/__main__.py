"""Print the schema page: ``python -m flyxr.schema > docs/schema.md``."""

import sys

from flyxr.schema import page

sys.stdout.write(page())
