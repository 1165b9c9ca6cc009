"""Types of the extension; what things mean stands in src/native.pyx."""

from typing import Final

__all__: Final = ["Handler"]

class Handler: ...
