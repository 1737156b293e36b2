"""Print the page about engines: ``python -m flyxr.engine > docs/engines.md``."""

import sys

from flyxr.engine import markdown_page

sys.stdout.write(markdown_page())
