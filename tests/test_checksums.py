"""One flipped bit in a cache or a result: it is made again or refused, and no number changes.

Each kind of file is written by the code that writes it, then one seeded bit at a time is flipped,
`FLIPS` of them, and the file is read by the code that reads it.
"""

import json
import pickle
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
import yaml
from optuna.storages import JournalStorage

from isic import checksums
from isic.checksums import (
    BLANK,
    Damaged,
    check,
    check_sum,
    check_zip,
    fill_in,
    read_json,
    sealed,
    sealed_json,
    sum_file,
)
from isic.errors import CheckpointError, DataError, IsicError
from isic.features import cache as feature_cache
from isic.features.cache import cached_features
from isic.features.family import FeatureTable
from isic.files import whole_file, write_summed
from isic.identity import read_config
from isic.images import fingerprint as prints
from isic.images import packfile
from isic.images.pack import _open_whole as opened_pack
from isic.images.packfile import MISSING, UNREADABLE, Pack, PackWriter
from isic.index import cache as index_cache
from isic.index.isic2024 import build_index
from isic.predictions import read_predictions, read_score, write_score
from isic.predictions.fitted import Fitted, fit_to
from isic.predictions.store import write_predictions
from isic.runs import RunFolder
from isic.search.journal import Journal
from isic.split import SplitOptions, make_split
from isic.split.overlap import _kept as kept_pairs
from isic.stack.cross_fit import Task
from isic.stack.fitted import Fitted as Stacker
from isic.stack.manifest import open_stack, save_stack
from isic.stack.stackers import RankAverage
from isic.stages.runs import study_lines
from tests.predictions.test_fitted import oof

FLIPS = 60


@dataclass(frozen=True)
class Kind:
    """A file, and what is read of it.

    read: Plain values, None where the file is to be made again; raises what the reader raises.
    """

    path: Path
    read: Callable[[], Any]


def of_index(folder: Path, archive: Path) -> Kind:
    index_cache.cached_index(build_index, archive, cache_root=folder)
    (path,) = folder.glob("*.parquet")

    def read() -> Any:
        found = index_cache._read(path, archive)
        return found and (found.table.to_csv(), found.info, found.notes, found.mounts)

    return Kind(path, read)


def of_features(folder: Path, archive: Path) -> Kind:
    values = np.random.default_rng(0).random((50, 3)).astype(np.float32)
    table = FeatureTable(np.array([f"I{i}" for i in range(50)], object), ("a", "b", "c"), values)
    cached_features(lambda: table, {}, pd.DataFrame({"image_id": table.ids}), {}, cache_root=folder)
    (path,) = (folder / "features").glob("*.parquet")

    def read() -> Any:
        found = feature_cache._read(path)
        return found and (found.ids.tolist(), found.names, found.values.tobytes())

    return Kind(path, read)


def of_fingerprints(folder: Path, archive: Path) -> Kind:
    path, stored = folder / "f.npy", random.Random(0).randbytes(20 * prints.PRINT.itemsize)
    prints._save(path, stored)

    def read() -> Any:
        found = prints._open_whole(path, 20)
        return None if found is None else found.tobytes()

    return Kind(path, read)


def of_pairs(folder: Path, archive: Path) -> Kind:
    path = folder / "alike.json"
    pairs = [[i, i + 7, "near"] for i in range(12)]
    path.write_text(sealed_json({"version": 1, "pairs": pairs}))
    return Kind(path, lambda: kept_pairs(path))


def write_pack(path: Path, side: int) -> None:
    rng = random.Random(0)
    with path.open("wb") as file:
        writer = PackWriter(file, side=side)
        for i in range(24):
            writer.add(f"{i}.jpg", rng.randbytes(3 * side**2 if side else 3000 + 9 * i))
        if not side:
            writer.add("bad.jpg", b"", status=UNREADABLE, reason="truncated")
            writer.add(None, b"", status=MISSING)
        writer.finish()


def pack_kind(path: Path) -> Kind:
    def read() -> Any:
        pack = opened_pack(path)
        if pack is None:
            return None
        rows = [(pack.encoded(i).tobytes(), pack.name(i), pack.reason(i)) for i in range(len(pack))]
        has_pixels = pack.pixels is not None
        pixels = [pack.pixels_of(i).tobytes() for i in range(len(pack)) if has_pixels]
        return rows, pixels, pack.status.tolist()

    return Kind(path, read)


def of_jpeg_pack(folder: Path, archive: Path) -> Kind:
    write_pack(folder / "a.pack", 0)
    return pack_kind(folder / "a.pack")


def of_pixel_pack(folder: Path, archive: Path) -> Kind:
    write_pack(folder / "a.pack", 16)
    return pack_kind(folder / "a.pack")


def of_split(folder: Path, archive: Path) -> Kind:
    index = build_index(archive)
    places = {"runs_root": folder, "cache_root": folder}
    options = SplitOptions(n_folds=3, overlap=False)
    path = make_split(index, options, **places).path

    def read() -> Any:
        split = make_split(index, options, **places)
        return split.table.to_csv(), split.held_out.to_csv(), split.hash

    return Kind(path, read)


def of_split_sum(folder: Path, archive: Path) -> Kind:
    split = of_split(folder, archive)
    return Kind(sum_file(split.path), split.read)


def of_predictions(folder: Path, archive: Path) -> Kind:
    frame, _ = oof(60)
    frame["lesion_id"], frame["split"] = pd.NA, "train"
    about = {"run": "r", "index_hash": "i", "split_hash": "s", "split_file": "splits/a.csv"}
    path = write_predictions(folder / "oof.parquet", frame, **about)

    def read() -> Any:
        found = read_predictions(path)
        return found.to_csv(), found.attrs

    return Kind(path, read)


def of_score(folder: Path, archive: Path) -> Kind:
    metrics = {name: {"value": 0.51234, "low": 0.4, "high": 0.61} for name in ("auc", "pauc")}
    score = {"metrics": metrics, "n": 120, "interval_over": "patient", "warnings": ["odd"]}
    path = write_score(folder / "score.json", score)
    return Kind(path, lambda: read_score(path))


def of_thresholds(folder: Path, archive: Path) -> Kind:
    path = fit_to(*oof()).write(folder)
    return Kind(path, lambda: asdict(Fitted.read(folder)))


def of_config(folder: Path, archive: Path) -> Kind:
    run = RunFolder(folder / "run" / "fold0")
    config = {"name": "a", "fold": 0, "evaluate": "last", "optim": {"lr": 0.001}, "seed": 0}
    run.claim(config, {"archive": "3fa9", "split_hash": "aa", "n_folds": 5})
    return Kind(run.config_file, lambda: read_config(run.config_file))


def a_stack(folder: Path) -> Callable[[], Any]:
    about = {"name": "s", "classes": ["a", "b"], "combine": "mean", "runs": ["r1", "r2"]}
    states = {0: {"groups": {"mean": 0.25, "n": 12}}}
    model = RankAverage.from_dict({"positions": [[0], [1]]})
    models = {Task("rank", 0, 0): Stacker("rank_average", model, (0, 1), n_classes=2)}
    save_stack(folder, models, columns={0: ["score_r1", "score_r2"]}, states=states, about=about)

    def read() -> Any:
        found = open_stack(folder)
        fitted = {task: one.to_text() for task, one in found.models.items()}
        return found.about, found.states, fitted

    return read


def of_stack(folder: Path, archive: Path) -> Kind:
    return Kind(folder / "stack.json", a_stack(folder))


def of_stack_state(folder: Path, archive: Path) -> Kind:
    return Kind(folder / "models" / "features-fold0.json", a_stack(folder))


def of_stack_model(folder: Path, archive: Path) -> Kind:
    read = a_stack(folder)
    return Kind(folder / "models" / "rank-fold0-seed0.json", read)


def of_checkpoint(folder: Path, archive: Path) -> Kind:
    import torch

    from isic.training.checkpoint import AtomicCheckpointIO, read

    record = {"network": {}, "network_class": "x", "classes": ["a", "b"], "activation": "sigmoid"}
    record |= {"auxiliary": [{"name": "size", "classes": [], "mean": 51.25, "std": 3.5}]}
    weights = {f"network.{i}": torch.arange(6.0) + i for i in range(4)}
    path = folder / "last.ckpt"
    checkpoint = {"isic": record, "epoch": 3, "state_dict": weights}
    AtomicCheckpointIO().save_checkpoint(checkpoint, path)

    def plain() -> Any:
        found = read(path)
        state = {k: v.numpy().tobytes() for k, v in found["state_dict"].items()}
        return found["isic"], found["epoch"], state

    return Kind(path, plain)


def of_soft_labels(folder: Path, archive: Path) -> Kind:
    from isic.engine.soft_labels import keep_labels, kept_labels

    path = folder / "t.parquet"
    ids = pd.Index([f"I{i}" for i in range(30)], name="image_id")
    keep_labels(path, pd.DataFrame({"a": np.random.default_rng(0).random(30)}, index=ids))

    def read() -> Any:
        found = kept_labels(path)
        return None if found is None else found.to_csv()

    return Kind(path, read)


def of_journal(folder: Path, archive: Path) -> Kind:
    path = folder / "study.log"
    study = optuna.create_study(storage=JournalStorage(Journal(path)), study_name="a")
    for i in range(3):
        trial = study.ask()
        trial.suggest_float("lr", 0.001, 0.1)
        study.tell(trial, i / 3)

    def read() -> Any:
        trials = optuna.load_study(study_name="a", storage=JournalStorage(Journal(path))).trials
        return [(t.params, t.value, t.state, t.datetime_complete) for t in trials]

    return Kind(path, read)


KINDS = [
    of_index,
    of_features,
    of_fingerprints,
    of_pairs,
    of_jpeg_pack,
    of_pixel_pack,
    of_split,
    of_split_sum,
    of_predictions,
    of_score,
    of_thresholds,
    of_config,
    of_stack,
    of_stack_state,
    of_stack_model,
    of_checkpoint,
    of_soft_labels,
    of_journal,
]


@pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__[3:] for kind in KINDS])
def test_a_flipped_bit_changes_no_number(
    kind: Callable[[Path, Path], Kind], archive32: Path, tmp_path: Path
) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = kind(tmp_path, archive32)
    whole, original = file.read(), file.path.read_bytes()
    assert whole is not None
    draw = random.Random(kind.__name__)
    noticed = 0
    for bit in draw.sample(range(8 * len(original)), FLIPS):
        damaged = bytearray(original)
        damaged[bit // 8] ^= 1 << bit % 8
        file.path.write_bytes(damaged)
        try:
            found = file.read()
        except IsicError as error:
            assert error.exit_code == (4 if kind is of_checkpoint else 3), error
            noticed += 1
            continue
        noticed += found is None
        assert found is None or found == whole, f"byte {bit // 8} of {len(original)}"
    assert noticed > FLIPS * 0.5
    file.path.write_bytes(original)
    assert file.read() == whole


# half a journal is a younger one: a kill leaves it, and work goes on
@pytest.mark.parametrize("kind", KINDS[:-1], ids=[kind.__name__[3:] for kind in KINDS[:-1]])
def test_half_a_file_is_no_file(
    kind: Callable[[Path, Path], Kind], archive32: Path, tmp_path: Path
) -> None:
    file = kind(tmp_path, archive32)
    original = file.path.read_bytes()
    file.path.write_bytes(original[: len(original) // 2])
    try:
        assert file.read() is None
    except IsicError as error:
        assert error.exit_code in (3, 4)


def test_a_large_pack_is_compared_row_by_row_when_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packfile, "CHECKED_AT_ONCE", 0)
    path = tmp_path / "a.pack"
    write_pack(path, 0)
    whole = pack_kind(path).read()
    damaged = bytearray(path.read_bytes())
    damaged[packfile.HEADER_BYTES + 5] ^= 8  # of row 0
    path.write_bytes(damaged)
    pack = Pack(path)
    worker = pickle.loads(pickle.dumps(pack))
    rows = [worker.encoded(i).tobytes() for i in range(1, len(worker))]
    assert rows == [data for data, _, _ in whole[0][1:]]
    with pytest.raises(Damaged, match=r"0\.jpg \(row 0\) differs. Give the same command again"):
        worker.encoded(0)
    assert not path.exists(), "the same command makes it again"


def test_a_row_is_compared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pack(tmp_path / "a.pack", 0)
    compared: list[int] = []
    value = checksums.google_crc32c.value

    def counted(data: Any) -> int:
        compared.append(len(data))
        return int(value(data))

    monkeypatch.setattr(checksums.google_crc32c, "value", counted)
    pack = Pack(tmp_path / "a.pack")
    assert len(compared) == len(pack)
    for reader in (pack, pickle.loads(pickle.dumps(pack))):
        for row in range(len(pack)):
            reader.encoded(row)
    assert len(compared) == len(pack)


def test_files_of_earlier_versions_have_no_checksum_and_open(
    archive32: Path, tmp_path: Path
) -> None:
    score = {"metrics": {"auc": {"value": 0.5, "low": 0.4, "high": 0.6}}, "n": 3}
    (tmp_path / "score.json").write_text(json.dumps(score))
    assert read_score(tmp_path / "score.json") == score
    thresholds = of_thresholds(tmp_path, archive32)
    fitted = thresholds.read()
    thresholds.path.write_text(json.dumps(fitted, indent=1))
    assert thresholds.read() == fitted
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"seed": 1}))
    assert read_config(tmp_path / "config.yaml") == {"seed": 1}
    (tmp_path / "alike.json").write_text('[1, [[0, 7, "near"]]]')
    assert kept_pairs(tmp_path / "alike.json") == [(0, 7, "near")]
    split = of_split(tmp_path, archive32)
    made = split.read()
    sum_file(split.path).unlink()
    assert split.read() == made


def test_a_pack_of_an_earlier_version_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.pack"
    write_pack(path, 0)
    new = pack_kind(path).read()
    with monkeypatch.context() as patch:
        patch.setattr(packfile, "_VERSION", 1)
        patch.setattr(PackWriter, "_sum_table", lambda self: b"")
        write_pack(path, 0)
    assert pack_kind(path).read() == new


EDITS = {
    "thresholds.json": (of_thresholds, '"temperature": ', '"temperature": 1'),
    "score.json": (of_score, "0.51234", "0.91234"),
    "config.yaml": (of_config, "n_folds: 5", "n_folds: 4"),
}


@pytest.mark.parametrize("name", EDITS)
def test_who_edits_a_result_is_told_how_to_use_it(
    name: str, archive32: Path, tmp_path: Path
) -> None:
    kind, old, new = EDITS[name]
    file = kind(tmp_path, archive32)
    before = file.read()
    file.path.write_text(file.path.read_text().replace(old, new))
    with pytest.raises(DataError, match=rf"{name} has changed .*delete its line `checksum`"):
        file.read()
    lines = file.path.read_text().splitlines(keepends=True)
    file.path.write_text("".join(line for line in lines if "checksum" not in line))
    assert file.read() != before


def test_a_split_that_was_made_and_edited_is_refused_and_can_be_given(
    archive32: Path, tmp_path: Path
) -> None:
    split = of_split(tmp_path, archive32)
    original = split.path.read_text()
    lines = original.splitlines(keepends=True)
    groups = pd.read_csv(split.path, dtype=str)["group"]
    row = int(groups.index[groups.duplicated(keep=False)][0])
    image, group, fold = lines[row + 1].strip().split(",")
    moved = [*lines[: row + 1], f"{image},{group},{(int(fold) + 1) % 3}\n", *lines[row + 2 :]]
    for text in ("".join(moved), "".join(lines[: len(lines) // 2])):
        split.path.write_text(text)
        with pytest.raises(DataError, match=r"checksum .*Delete it .*split\.file="):
            split.read()
    sum_file(split.path).unlink()
    with pytest.raises(DataError, match=r"lacks \d+ rows.*Delete it"):
        split.read()
    split.path.write_text("".join(moved))
    with pytest.raises(DataError, match="groups lie in several folds"):
        split.read()
    index, places = build_index(archive32), {"runs_root": tmp_path, "cache_root": tmp_path}
    given = SplitOptions(file=str(split.path), overlap=False)
    with pytest.raises(DataError, match="groups .* lie in several folds"):
        make_split(index, given, **places)
    swapped = "".join(lines[:1] + [turned(line) for line in lines[1:]])
    split.path.write_text(swapped)
    assert make_split(index, given, **places).path == split.path


def turned(line: str) -> str:
    """The line of a split of three folds with every fold moved on, as someone may want it."""
    head, _, fold = line.strip().rpartition(",")
    return f"{head},{(int(fold) + 1) % 3}\n"


def test_a_seal_is_found_at_both_ends_of_a_large_file_and_in_any_digits(tmp_path: Path) -> None:
    body = random.Random(1).randbytes(3_000_000)
    for i, content in enumerate((BLANK.encode() + body, body + BLANK.encode() + b"tail")):
        path = tmp_path / str(i)
        with whole_file(path) as file:
            file.write(content)
            fill_in(file)
        assert path.read_bytes() == sealed(content)
        check(path)
        for at in (20, 1_500_000, len(content) - 2):
            damaged = bytearray(path.read_bytes())
            damaged[at] ^= 1
            path.write_bytes(damaged)
            with pytest.raises(Damaged, match="its checksum differs"):
                check(path)
            path.write_bytes(sealed(content))


def test_a_moved_file_keeps_its_seal_alone(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(sealed_json({"a": 1.5}, indent=1))
    moved = (tmp_path / "a.json").rename(tmp_path / "elsewhere.json")
    assert read_json(moved) == {"a": 1.5}
    moved.write_text(moved.read_text().replace("1.5", "1.6"))
    with pytest.raises(Damaged):
        read_json(moved)


def test_a_checkpoint_of_any_torch_is_compared(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "w.ckpt"
    torch.save({"w": torch.ones(1000)}, path)
    assert not check_zip(path)
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(torch.ones(8).numpy().tobytes()) + 3] ^= 1
    path.write_bytes(damaged)
    assert not torch.equal(torch.load(path, weights_only=True)["w"], torch.ones(1000))
    assert "checksum of 'w/data/0' differs" in check_zip(path)


def test_overwrite_goes_over_a_damaged_config(tmp_path: Path) -> None:
    of_config(tmp_path, tmp_path)
    run = RunFolder(tmp_path / "run" / "fold0")
    run.config_file.write_text(run.config_file.read_text().replace("0.001", "0.002"))
    config = {"name": "a", "fold": 0, "evaluate": "last", "optim": {"lr": 0.001}, "seed": 0}
    content = {"archive": "3fa9", "split_hash": "aa", "n_folds": 5}
    with pytest.raises(Damaged, match=r"config\.yaml has changed"):
        run.claim(config, content)
    run.claim(config, content, overwrite=True)
    assert read_config(run.config_file)["optim"] == {"lr": 0.001}


def test_a_table_of_ours_that_was_edited_is_used_on_purpose_only(tmp_path: Path) -> None:
    """Pseudo-labels, and the trials that `python -m isic runs` sums up."""
    study = tmp_path / "study"
    study.mkdir()
    (study / "prepared.yaml").write_text("metrics: {mode: max, monitor: val/auc}\n")
    table = study / "trials.csv"
    write_summed(table, "number,value,state\n0,0.71,COMPLETE\n1,0.65,COMPLETE\n")
    (line,) = study_lines(tmp_path)
    assert "val/auc 0.71, best of 2 complete" in line
    table.write_text(table.read_text().replace("0.65", "0.95"))
    (line,) = study_lines(tmp_path)
    assert "trials.csv has changed" in line
    assert "0.95" not in line
    with pytest.raises(Damaged, match="delete the checksum to use the file as it is"):
        check_sum(table)
    sum_file(table).unlink()
    (line,) = study_lines(tmp_path)
    assert "val/auc 0.95" in line


def test_a_damaged_checkpoint_gives_no_weights_to_begin_with(tmp_path: Path) -> None:
    from isic.models.weights import read_weights

    file = of_checkpoint(tmp_path, tmp_path)
    content = bytearray(file.path.read_bytes())
    content[content.index(np.arange(6, dtype=np.float32).tobytes()) + 7] ^= 1
    file.path.write_bytes(content)
    with pytest.raises(CheckpointError, match="checksum of .* differs"):
        read_weights(file.path)


def test_a_loader_process_that_meets_damage_ends_the_command_in_one_line(tmp_path: Path) -> None:
    from torch.utils.data import DataLoader

    write_pack(tmp_path / "a.pack", 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packfile, "CHECKED_AT_ONCE", 0)
        content = bytearray((tmp_path / "a.pack").read_bytes())
        content[packfile.HEADER_BYTES + 5] ^= 8
        (tmp_path / "a.pack").write_bytes(content)
        loader: Any = DataLoader(Encoded(Pack(tmp_path / "a.pack")), num_workers=1)
        with pytest.raises(Damaged) as caught:
            list(loader)
    assert caught.value.exit_code == 3
    assert str(caught.value).startswith(f"{tmp_path / 'a.pack'} has changed since")
    assert "\n" not in str(caught.value)


class Encoded:
    """A pack as a data set."""

    def __init__(self, pack: Pack) -> None:
        self.pack = pack

    def __len__(self) -> int:
        return len(self.pack)

    def __getitem__(self, row: int) -> int:
        return len(self.pack.encoded(row))
