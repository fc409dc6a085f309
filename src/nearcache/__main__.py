"""`python -m nearcache` does what `nearcache` does."""

import sys

from nearcache.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
