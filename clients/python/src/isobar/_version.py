"""The version of the package, which is that of the node that it was released with."""

from __future__ import annotations

import importlib.metadata

try:
    __version__ = importlib.metadata.version("isobar")
except importlib.metadata.PackageNotFoundError:  # run from the sources
    __version__ = "0.0.0.dev0"
