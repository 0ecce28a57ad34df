"""`python -m deflare_core`, the same as the command `deflare`."""

import sys

from deflare_core.app.commands import main

if __name__ == "__main__":
    sys.exit(main())
