"""``python -m bslfast`` is the command ``bslfast``."""

import sys

from bslfast.cli import main

sys.exit(main())
