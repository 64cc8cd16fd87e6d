"""What a value must be given instead of: OmegaConf's own mark, without importing it."""

from typing import Any

MISSING: Any = "???"
