"""The documentation that is already on the machine: docstrings of the standard library and of installed packages.

Files are read with `ast`; nothing is imported or run. A document is a module's docstrings in order.
"""

import importlib.metadata
import importlib.util
import platform
import sysconfig
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from bertsmith.corpus.dedup import Seen
from bertsmith.corpus.docstrings import module_paragraphs
from bertsmith.corpus.document import RawDocument
from bertsmith.engine import Engine
from bertsmith.errors import DataError

_STANDARD_LIBRARY = "python"
_LEFT_OUT = {"test", "tests", "testing", "_test", "idle_test", "site-packages", "dist-packages", "__pycache__",
             "_vendor", "vendor", "externals", "conftest.py", "lib2to3", "lib-dynload", "ensurepip"}  # fmt: skip
_FILES_AT_ONCE = 32
REPEATED_PARAGRAPH = "repeated paragraph of python-docs"
"""Reason that counts paragraphs, not documents."""


def package_versions(packages: Sequence[str]) -> dict[str, str]:
    """Version of Python and of each package's distribution."""
    owners = importlib.metadata.packages_distributions()
    versions = {_STANDARD_LIBRARY: platform.python_version()}
    for package in packages:
        owner = owners.get(package, [package])[0]
        try:
            versions[package] = importlib.metadata.version(owner)
        except importlib.metadata.PackageNotFoundError as error:
            raise DataError(f"python-docs: package {package!r} is not installed: pip install {package}") from error
    return versions


def read_python_docs(packages: Sequence[str], dropped: Counter[str], *, workers: int) -> Iterator[RawDocument]:
    """A document for each module that has prose; its id is `folder/module.name` of the import path.

    A paragraph that stood in an earlier module (inherited documentation, mostly) is dropped and counted.
    """
    seen = Seen()
    modules: list[tuple[str, str, Path]] = []
    for package in (_STANDARD_LIBRARY, *packages):
        root, files = find_modules(package)
        modules += [(package, _module_name(package, path.relative_to(root)), path) for path in files]
    found = _all_paragraphs([path for _, _, path in modules], workers)
    for (package, name, _), paragraphs in zip(modules, found, strict=True):
        if paragraphs is None:
            dropped["module does not parse"] += 1
            continue
        fresh = [paragraph for paragraph in paragraphs if not seen.add(paragraph)]
        dropped[REPEATED_PARAGRAPH] += len(paragraphs) - len(fresh)
        if fresh:
            yield RawDocument(name, "\n\n".join(fresh), package, unit=name)


def find_modules(package: str) -> tuple[Path, list[Path]]:
    """A package's folder and its source files, in order of their paths; tests and bundled copies left out."""
    if package == _STANDARD_LIBRARY:
        root = Path(sysconfig.get_path("stdlib"))
        return root, _python_files(root)
    # Only a top-level name is looked up, which imports nothing.
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or spec.origin is None:
        raise DataError(f"python-docs: package {package!r} is not installed; give names as they are imported")
    origin = Path(spec.origin)
    if spec.submodule_search_locations is None:
        return origin.parent, [origin] if origin.suffix == ".py" else []
    return origin.parent, _python_files(origin.parent)


def _python_files(root: Path) -> list[Path]:
    found: list[Path] = []
    folders = [root]
    while folders:
        for entry in folders.pop().iterdir():
            if entry.name in _LEFT_OUT or entry.name.startswith(("test_", ".")):
                continue
            if entry.is_dir():
                folders.append(entry)
            elif entry.suffix == ".py":
                found.append(entry)
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def _module_name(package: str, path: Path) -> str:
    """`torch`, `nn/functional.py` -> `torch/nn.functional`."""
    parts = [*path.parts[:-1], path.stem]
    if parts[-1] == "__init__" and len(parts) > 1:
        parts.pop()
    return f"{package}/{'.'.join(parts)}"


def _all_paragraphs(files: Sequence[Path], workers: int) -> Iterator[list[str] | None]:
    """Paragraphs of each file, in the order of the files whatever the number of processes."""
    runs = [files[start : start + _FILES_AT_ONCE] for start in range(0, len(files), _FILES_AT_ONCE)]
    for found in Engine(workers).map(_paragraphs_of_all, runs):
        yield from found


def _paragraphs_of_all(files: Sequence[Path]) -> list[list[str] | None]:
    return [module_paragraphs(file) for file in files]
