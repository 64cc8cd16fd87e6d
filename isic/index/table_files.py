"""Which CSVs of an archive are there, and what to say where the train table is not among them.

Source: the folder itself. Only names are read, of an ISIC Archive download also the header. Names
that begin with a dot are left out: macOS writes `._x.csv` beside `x.csv`, which is no table.
Trap: a folder of nothing but CSVs beside one of images is how people sort a download; its parent is
the archive's root, while a folder with CSVs and images is a root of its own.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from isic.errors import DataError, first_five
from isic.index.image_files import CONTAINERS, EXTENSIONS, listed, zips_of
from isic.index.schema import DatasetInfo


class NoTrainTable(DataError):
    """There is no train table; `said` without the next step, for whoever goes on without one."""

    def __init__(self, said: str, next_step: str) -> None:
        super().__init__(f"{said}\n{next_step}")
        self.said = said


def tables_of(root: Path) -> tuple[dict[str, Path], list[str]]:
    """Lower-case name -> the CSV below `root`, and notes; names in alphabetical order.

    Of the root itself, else of its one folder that holds tables and nothing else to read.
    """
    if tables := _csvs(root):
        return tables, []
    folders = [root / n for n in listed(root) if (root / n).is_dir()]
    found = {f: tables for f in folders if _holds_tables_alone(f) and (tables := _csvs(f))}
    if len(found) != 1:
        return {}, []
    (folder, tables) = next(iter(found.items()))
    return tables, [f"no table lies in the root itself: those of {folder.name}/ are read"]


def _csvs(folder: Path) -> dict[str, Path]:
    # Listed once: a flat folder of images can hold 100,000 other names.
    return {n.lower(): folder / n for n in listed(folder) if n.lower().endswith(".csv")}


def _holds_tables_alone(folder: Path) -> bool:
    """No image, store or folder lies beside the tables."""
    others = (*EXTENSIONS, *CONTAINERS)
    with os.scandir(folder) as entries:
        shown = (e for e in entries if not e.name.startswith("."))
        return not any(e.name.lower().endswith(others) or e.is_dir() for e in shown)


def how_to_get(info: DatasetInfo, root: Path) -> str:
    """The next step for whoever has no archive, or the wrong one."""
    return (
        f"Set data.root to the folder that holds the tables, or download it:\n"
        f"  {info.download.replace('DATA_ROOT', str(root))}\n"
        f"or generate one to try: python -m isic synth data={info.name} data.root={root}"
    )


def no_table(info: DatasetInfo, root: Path, names: Sequence[str]) -> NoTrainTable:
    """Say which files were looked for, where they are instead, and what is not unpacked."""
    looked = ", ".join(str(root.absolute() / name) for name in names)
    lines = [f"{info.name}: no train table; looked for {looked}"]
    patterns = [f"{depth}{name}" for name in names for depth in ("*/", "*/*/")]
    places = [p for pattern in patterns for p in root.glob(pattern)]
    places += [p for name in names for p in root.absolute().parent.glob(name)]
    places = [p for p in places if not p.name.startswith(".")]
    if places:
        folders = list(dict.fromkeys(p.parent for p in places))
        one = f"={folders[0]}" if len(folders) == 1 else f" to the folder of {info.name}"
        lines.append(f"found {first_five(places)}: set data.root{one}")
    if zips := zips_of(root):
        lines.append(f"found {first_five(zips)}, not unpacked: unzip them in {root.absolute()}")
    if _is_archive_download(root / "metadata.csv"):
        lines.append(
            f"found {root.absolute() / 'metadata.csv'}, a download of the ISIC Archive: "
            f"data=folder data.root={root} reads it"
        )
    return NoTrainTable("\n".join(lines), how_to_get(info, root))


def _is_archive_download(path: Path) -> bool:
    """Whether the file's header is that of the archive's own metadata."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            return "isic_id" in file.readline().strip().split(",")
    except (OSError, UnicodeDecodeError):
        return False
