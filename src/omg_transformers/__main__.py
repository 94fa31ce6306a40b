"""`python -m omg_transformers` is `omg-seg`, for launchers that want a module."""

import sys

from omg_transformers.cli import main

sys.exit(main())
