"""Runs tokenizing.py, which see:    python bench/tokenize.py --quick

The standard library has a module of this name too, and a script's folder is searched before the standard library: so
whatever any script here imports may find this file in its place. It then gives way.
"""

import importlib
import sys

if __name__ == "__main__":
    from tokenizing import main

    main()
else:
    here = sys.path.pop(0)
    del sys.modules["tokenize"]
    importlib.import_module("tokenize")  # what stands in sys.modules after an import is what was imported
    sys.path.insert(0, here)
