import os
from pathlib import Path

import platformdirs


def home() -> Path:
    """Folder that holds the data sets: `GESM_HOME`, else the user's cache folder."""
    value = os.environ.get("GESM_HOME")
    return Path(value).expanduser() if value else Path(platformdirs.user_cache_dir("gesm", appauthor=False))


def offline() -> bool:
    """Whether `GESM_OFFLINE` forbids downloads (any value but empty and 0 does)."""
    return os.environ.get("GESM_OFFLINE", "") not in ("", "0")
