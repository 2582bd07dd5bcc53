"""`python -m edgeq.cli` is `edgeq`."""

from __future__ import annotations

import sys

from edgeq.cli import main

if __name__ == "__main__":
    sys.exit(main())
