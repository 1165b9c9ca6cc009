"""jvQuant's compressed market feed as typed numpy records in preallocated ring buffers."""

from jvq_fast import _picows

import importlib as _importlib
import importlib.util as _util

if _util.find_spec("jvq_fast._built_with"):
    _picows.check()

__version__ = "0.1.0"

for _name in ("records", "ring", "decoder", "errors", "capture", "feed"):
    if _util.find_spec("jvq_fast." + _name):
        _module = _importlib.import_module("jvq_fast." + _name)
        for _each in getattr(_module, "__all__", [n for n in vars(_module) if n[0].isupper() or n == "replay"]):
            globals()[_each] = getattr(_module, _each)
