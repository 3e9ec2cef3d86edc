"""``python -m mmalign`` and ``accelerate launch -m mmalign`` are the ``mmalign`` command."""

import sys

from mmalign.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
