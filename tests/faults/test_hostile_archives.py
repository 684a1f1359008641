"""Archives made to harm: none may write outside its folder, fill the disk, or end in a traceback."""

import gzip
import hashlib
import io
import random
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bertsmith.config import Recipe, parse_recipe
from bertsmith.corpus.fetch import fetch
from bertsmith.errors import DataError

GOOD = b"Kim saw Sandy.\n"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def zip_of(members: list[tuple[zipfile.ZipInfo | str, bytes]]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data, compress_type=zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def tar_of(members: list[tuple[tarfile.TarInfo | str, bytes]], mode: str = "gz") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=f"w:{mode}") as archive:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(data) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def recipe_for(archive: bytes, folder: Path, members: dict[str, str], **more: object) -> Recipe:
    file = folder / "outside" / "archive"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(archive)
    download = {"url": file.as_uri(), "sha256": sha256(archive), "members": members, "licence": "none", **more}
    return parse_recipe({"name": "test", "data": {"downloads": [download]}})


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


def zip_link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize("pack", [zip_of, tar_of])
@pytest.mark.parametrize("name", ["../../evil.txt", "/tmp/bertsmith-evil.txt", "a/../../../evil.txt", "..\\evil.txt"])
def test_members_that_point_outside_go_where_the_recipe_says_or_nowhere(
    tmp_path: Path, pack: Callable[..., bytes], name: str
) -> None:
    archive = pack([(name, GOOD), ("good.txt", GOOD)])
    fetch(recipe_for(archive, tmp_path, {"good.txt": "good.txt"}), tmp_path / "x/y/data")
    assert tree(tmp_path) == {"outside/archive", "x/y/data/good.txt"}
    fetch(recipe_for(archive, tmp_path, {name: "named.txt"}), tmp_path / "x/y/data")
    assert tree(tmp_path) == {"outside/archive", "x/y/data/good.txt", "x/y/data/named.txt"}
    assert not Path("/tmp/bertsmith-evil.txt").exists()


@pytest.mark.parametrize(
    "archive",
    [
        tar_of([(link("a.txt", "/etc/passwd"), b"")]),
        tar_of([("b.txt", GOOD), (link("a.txt", "b.txt", tarfile.LNKTYPE), b"")]),
        tar_of([(link("a.txt", "", tarfile.CHRTYPE), b"")]),
        tar_of([(link("a.txt", "", tarfile.FIFOTYPE), b"")]),
        tar_of([(link("a.txt", "", tarfile.DIRTYPE), b"")]),
        zip_of([(zip_link("a.txt"), b"/etc/passwd")]),
    ],
    ids=["symlink", "hardlink", "device", "fifo", "folder", "zip-symlink"],
)
def test_links_devices_and_folders_are_refused(tmp_path: Path, archive: bytes) -> None:
    with pytest.raises(DataError, match=r"'a\.txt' is a link, folder or device"):
        fetch(recipe_for(archive, tmp_path, {"a.txt": "a.txt"}), tmp_path / "data")
    assert tree(tmp_path / "data") == set()


@pytest.mark.parametrize("mode", ["gz", "bz2", "xz"])
def test_a_tar_bomb_stops_at_the_bound_even_in_members_not_asked_for(tmp_path: Path, mode: str) -> None:
    archive = tar_of([("zeros", bytes(30_000_000)), ("a.txt", GOOD)], mode)
    assert len(archive) < 100_000
    with pytest.raises(DataError, match="more than 1,000,000 bytes"):
        fetch(recipe_for(archive, tmp_path, {"a.txt": "a.txt"}, max_bytes=1_000_000), tmp_path / "data")
    assert tree(tmp_path / "data") == set()


def test_a_zip_bomb_stops_at_the_bound_counted_over_all_members(tmp_path: Path) -> None:
    archive = zip_of([("a", bytes(700_000)), ("b", bytes(700_000))])
    with pytest.raises(DataError, match="more than 1,000,000 bytes"):
        fetch(recipe_for(archive, tmp_path, {"a": "a", "b": "b"}, max_bytes=1_000_000), tmp_path / "data")
    assert tree(tmp_path / "data") == set()


def test_a_zip_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    archive = zip_of([("a", bytes(700_000))])
    lying = archive.replace((700_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    assert lying != archive
    with pytest.raises(DataError, match="not an intact"):
        fetch(recipe_for(lying, tmp_path, {"a": "a"}), tmp_path / "data")
    assert tree(tmp_path / "data") == set()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("pack", [zip_of, tar_of])
def test_a_member_that_is_there_twice_is_refused(tmp_path: Path, pack: Callable[..., bytes]) -> None:
    with pytest.raises(DataError, match="twice"):
        fetch(recipe_for(pack([("a", b"1"), ("a", b"2")]), tmp_path, {"a": "a"}), tmp_path / "data")


def test_a_missing_member_names_the_nearest(tmp_path: Path) -> None:
    archive = zip_of([("cola/raw/train.tsv", GOOD), ("readme", b"")])
    with pytest.raises(DataError, match=r"no member 'cola/train\.tsv'; it has 'cola/raw/train\.tsv'"):
        fetch(recipe_for(archive, tmp_path, {"cola/train.tsv": "a"}), tmp_path / "data")


def test_one_wrong_member_keeps_every_member_out(tmp_path: Path) -> None:
    recipe = recipe_for(
        zip_of([("a", GOOD), ("b", GOOD)]), tmp_path, {"a": "a", "b": "b"}, member_sha256={"b": "0" * 64}
    )
    with pytest.raises(DataError, match=f"b of file.*expected sha256 {'0' * 64}, found {sha256(GOOD)}"):
        fetch(recipe, tmp_path / "data")
    assert tree(tmp_path / "data") == set()


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    archive = bytearray(zip_of([("a", GOOD)]))
    archive[6] |= 1
    archive[archive.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(DataError, match="encrypted"):
        fetch(recipe_for(bytes(archive), tmp_path, {"a": "a"}), tmp_path / "data")


@pytest.mark.parametrize(
    "archive",
    [b"", b"PK", b"plain text, no archive", gzip.compress(b"no tar inside"), zip_of([("a", GOOD)])[:-30]],
    ids=["empty", "magic-only", "text", "gzip-of-text", "torn-zip"],
)
def test_what_is_no_archive_is_said_to_be_none(tmp_path: Path, archive: bytes) -> None:
    with pytest.raises(DataError, match=r"not an intact|no member"):
        fetch(recipe_for(archive, tmp_path, {"a": "a"}), tmp_path / "data")


@pytest.mark.parametrize("mode", ["zip", "", "gz", "bz2", "xz"])
def test_damaged_archives_give_the_file_or_a_clear_error(tmp_path: Path, mode: str) -> None:
    """Bytes flipped at random: with the member's digest known, what comes out is right or refused."""
    text = random.Random(1).randbytes(3000)
    whole = zip_of([("a", text)]) if mode == "zip" else tar_of([("a", text)], mode)
    for seed in (*range(150), 558):  # 558: a zip whose directory would begin before the file does
        generator = random.Random(seed)
        damaged = bytearray(whole)
        for _ in range(generator.randint(1, 4)):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        folder = tmp_path / str(seed)
        folder.mkdir()
        recipe = recipe_for(bytes(damaged[: generator.choice((None, len(damaged) // 2))]), folder, {"a": "a"},
                            member_sha256={"a": sha256(text)}, max_bytes=10_000_000)  # fmt: skip
        try:
            (path,) = fetch(recipe, folder / "data")
        except DataError:
            assert tree(folder / "data") == set()
        else:
            assert path.read_bytes() == text
