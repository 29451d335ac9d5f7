"""The version of the client."""

import sys

__version__ = "0.1.0"

USER_AGENT = f"residuum-python/{__version__} python/{sys.version_info.major}.{sys.version_info.minor}"
