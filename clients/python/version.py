"""The version that is being built."""

import os


def version() -> str:
    """VERSION, which names the project's releases; without it this is no release."""
    return os.environ.get("VERSION", "").removeprefix("v") or "0.0.0.dev0"
