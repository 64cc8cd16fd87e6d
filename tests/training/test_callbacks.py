"""Averaged weights by hand, which checkpoints are kept, draws that follow from seed and epoch."""

import copy
import gc
import itertools
import logging
import signal
import time
import weakref
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from isic.training import callbacks as callbacks_module
from isic.training.callbacks import (
    CallbackOptions,
    EpochSeed,
    ExponentialAverage,
    OwnSigterm,
    Stopwatch,
    checkpoint_callbacks,
)

N, BATCH = 12, 4
SCORES = (0.1, 0.5, float("nan"), 0.3)


class Small(pl.LightningModule):
    """Batch norm and a linear layer; `val/score` follows a script."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(torch.rand(1).item())
        return self.layers(batch["image"]).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/score", torch.tensor(SCORES[self.current_epoch % len(SCORES)]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Record(pl.Callback):
    """Keep the live weights after every step."""

    def __init__(self):
        self.states = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.states.append(copy.deepcopy(pl_module.state_dict()))


def fit(tmp_path, callbacks, *, epochs=2, module=None, **options):
    torch.manual_seed(0)
    images = torch.randn(N, 3)
    batches = [
        {"image": images[i : i + BATCH], "row": torch.arange(i, i + BATCH)}
        for i in range(0, N, BATCH)
    ]
    trainer = pl.Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=any(isinstance(c, pl.callbacks.ProgressBar) for c in callbacks),
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, pl.callbacks.ModelCheckpoint) for c in callbacks),
        num_sanity_val_steps=0,
    )
    module = module or Small()
    # a generator of its own, as our loaders have: a new iterator else draws from torch's stream
    loader = DataLoader(batches, batch_size=None, generator=torch.Generator())
    trainer.fit(module, loader, loader, **options)
    return trainer, module


@pytest.mark.parametrize("decay", [0.999, 0.2])
def test_average_by_hand_with_buffers_and_warm_up(tmp_path, decay):
    record = Record()
    _, module = fit(tmp_path, [record, ExponentialAverage(decay)])
    assert len(record.states) == 6
    average = {k: v.clone() for k, v in record.states[0].items()}
    for n, state in enumerate(record.states[1:], start=1):
        kept = min(decay, (1 + n) / (10 + n))
        for key, value in state.items():
            if value.is_floating_point():
                average[key] = kept * average[key] + (1 - kept) * value
            else:
                average[key] = value
    for key, value in module.state_dict().items():
        assert torch.allclose(value, average[key], atol=1e-6), key
    moved = average["layers.0.running_mean"] - record.states[-1]["layers.0.running_mean"]
    assert moved.abs().max() > 1e-6  # buffers are averaged, not copied


def test_a_resumed_average_ends_bit_for_bit_where_a_whole_one_does(tmp_path):
    def callbacks(folder):
        saving = checkpoint_callbacks(tmp_path / folder, monitor=None, mode="max")
        return [EpochSeed(3), ExponentialAverage(0.9), *saving]

    fit(tmp_path, callbacks("whole"), epochs=3)
    fit(tmp_path, callbacks("cut"), epochs=1)
    last = tmp_path / "cut" / "last.ckpt"
    fit(tmp_path, callbacks("cut"), epochs=3, ckpt_path=last, weights_only=True)
    whole, cut = (
        torch.load(tmp_path / folder / "last.ckpt", weights_only=True)
        for folder in ("whole", "cut")
    )
    for part in ("state_dict", "current_model_state", "averaging_state"):
        assert whole[part].keys() == cut[part].keys()
        assert all(torch.equal(whole[part][k], cut[part][k]) for k in whole[part]), part
    assert whole["averaging_state"]["n_averaged"] == 9


def test_the_average_lies_where_the_training_is_not_where_the_module_still_is():
    gpu = torch.device("meta")  # a device that every machine has, and that is not the CPU
    callback, module = ExponentialAverage(0.9), Small()
    callback.setup(SimpleNamespace(strategy=SimpleNamespace(root_device=gpu)), module, "fit")
    assert {p.device.type for p in callback._average_model.module.parameters()} == {"meta"}
    assert callback._average_model.n_averaged.device.type == "cpu"


def test_counters_of_batch_norms_are_copied_together(tmp_path, monkeypatch):
    """One launch for each of them is more than the average of all weights costs."""
    calls = []
    copy_all = torch._foreach_copy_
    monkeypatch.setattr(torch, "_foreach_copy_", lambda *a: calls.append(len(a[0])) or copy_all(*a))
    module = Small()
    module.more = nn.ModuleList(nn.BatchNorm1d(3) for _ in range(3))
    fit(tmp_path, [ExponentialAverage(0.9)], epochs=1, module=module)
    assert calls == [4, 4, 4]


def test_the_averaged_copy_is_gone_when_the_fit_is_over(tmp_path):
    callback = ExponentialAverage(0.9)
    copies = []

    class Look(pl.Callback):
        def on_train_start(self, *_):
            copies.append(weakref.ref(next(callback._average_model.module.parameters())))

    gc.disable()  # a GPU's memory must not wait for it
    try:
        fit(tmp_path, [callback, Look()], epochs=1)
        assert copies[0]() is None
    finally:
        gc.enable()


def test_best_is_the_best_finite_epoch_and_last_is_last(tmp_path):
    callbacks = checkpoint_callbacks(tmp_path / "ckpt", monitor="val/score", mode="max")
    fit(tmp_path, callbacks, epochs=4)
    assert sorted(p.name for p in (tmp_path / "ckpt").iterdir()) == ["best.ckpt", "last.ckpt"]
    epochs = {
        name: torch.load(tmp_path / "ckpt" / f"{name}.ckpt", weights_only=True)["epoch"]
        for name in ("best", "last")
    }
    assert epochs == {"best": 1, "last": 3}


def set_clock(monkeypatch, now):
    """What the callbacks, and nothing else, take for the time."""
    clock = SimpleNamespace(monotonic=now, perf_counter=time.perf_counter)
    monkeypatch.setattr(callbacks_module, "time", clock)


@pytest.mark.parametrize(
    ("epoch", "write", "expected"),
    [
        (1.0, 0.05, [0, 1, 2, 3, 4, 5]),
        (1.0, 0.4, [0, 1, 2, 3, 4, 5]),  # a large share, and nobody would notice
        (100.0, 9.0, [0, 1, 2, 3, 4, 5]),
        (10.0, 2.0, [0, 2, 4, 5]),
        (1.0, 2.0, [0, 5]),
    ],
)
def test_writing_takes_a_tenth_of_the_time_and_the_last_epoch_is_there(
    tmp_path, monkeypatch, epoch, write, expected
):
    now, written = [0.0], []
    save = pl.Trainer.save_checkpoint

    def slowly(trainer, path, *arguments, **options):
        save(trainer, path, *arguments, **options)
        now[0] += write
        written.append(torch.load(path, weights_only=True)["epoch"])

    class Works(pl.Callback):
        def on_train_epoch_start(self, *_):
            now[0] += epoch

    monkeypatch.setattr(pl.Trainer, "save_checkpoint", slowly)
    set_clock(monkeypatch, lambda: now[0])
    saving = checkpoint_callbacks(tmp_path / "ckpt", monitor=None, mode="max")
    fit(tmp_path, [Works(), *saving], epochs=6)
    assert written == expected


def test_what_ends_a_training_early_is_written(tmp_path, monkeypatch):
    """Else the same command would train on after what stopped it."""
    set_clock(monkeypatch, itertools.count(0.0, 5.0).__next__)  # a write takes as long as an epoch

    class Stop(pl.Callback):
        def on_train_epoch_end(self, trainer, *_):
            trainer.should_stop = trainer.current_epoch == 2

    saving = checkpoint_callbacks(tmp_path / "ckpt", monitor=None, mode="max")
    fit(tmp_path, [Stop(), *saving], epochs=9)
    assert torch.load(tmp_path / "ckpt" / "last.ckpt", weights_only=True)["epoch"] == 2


def test_an_epoch_that_was_not_written_is_trained_again_to_the_same_bits(tmp_path, monkeypatch):
    def callbacks(folder):
        saving = checkpoint_callbacks(tmp_path / folder, monitor="val/score", mode="max")
        return [EpochSeed(3), ExponentialAverage(0.9), *saving]

    class Killed(pl.Callback):
        def on_train_batch_start(self, trainer, *_):
            if trainer.current_epoch == 3:
                raise SystemExit(9)

    fit(tmp_path, callbacks("whole"), epochs=4)
    set_clock(monkeypatch, itertools.count(0.0, 5.0).__next__)
    with pytest.raises(SystemExit):
        fit(tmp_path, [*callbacks("cut"), Killed()], epochs=4)
    last = tmp_path / "cut" / "last.ckpt"
    assert torch.load(last, weights_only=True)["epoch"] == 0
    assert torch.load(last.with_name("best.ckpt"), weights_only=True)["epoch"] == 1
    fit(tmp_path, callbacks("cut"), epochs=4, ckpt_path=last, weights_only=True)
    for name in ("best", "last"):
        whole, cut = (
            torch.load(tmp_path / folder / f"{name}.ckpt", weights_only=True)
            for folder in ("whole", "cut")
        )
        assert whole["epoch"] == cut["epoch"]
        for part in ("state_dict", "current_model_state", "averaging_state"):
            assert all(torch.equal(whole[part][k], cut[part][k]) for k in whole[part]), part


def test_without_validation_only_last_is_written(tmp_path):
    fit(tmp_path, checkpoint_callbacks(tmp_path / "ckpt", monitor=None, mode="max"))
    assert [p.name for p in (tmp_path / "ckpt").iterdir()] == ["last.ckpt"]


def test_draws_follow_from_seed_and_epoch_also_after_a_resume(tmp_path):
    def callbacks():
        return [EpochSeed(3), *checkpoint_callbacks(tmp_path / "ckpt", monitor=None, mode="max")]

    whole = fit(tmp_path, callbacks(), epochs=3)[1].seen
    fit(tmp_path, callbacks(), epochs=2)
    torch.rand(100)  # another process would stand elsewhere in the stream
    last = tmp_path / "ckpt" / "last.ckpt"
    resumed = fit(tmp_path, callbacks(), epochs=3, ckpt_path=last, weights_only=True)[1].seen
    assert resumed == whole[6:]
    assert len(set(whole)) == 9
    other = fit(tmp_path, [EpochSeed(4)], epochs=1)[1].seen
    assert not set(other) & set(whole)


def test_stopwatch_counts_training_images_and_goes_on_after_a_resume(tmp_path):
    watch = Stopwatch()
    fit(tmp_path, [watch])
    assert watch.images == 2 * N
    assert watch.train_seconds > 0
    assert watch.validation_seconds > 0
    assert watch.images_per_second == watch.images / watch.train_seconds
    again = Stopwatch()
    again.load_state_dict(watch.state_dict())
    assert again.images == watch.images
    assert Stopwatch().images_per_second == 0


def test_sigterm_ends_as_it_would_without_lightning(tmp_path):
    def mine(*_):
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, mine)
    try:
        seen = []

        class Look(pl.Callback):
            def on_train_batch_start(self, *_):
                seen.append(signal.getsignal(signal.SIGTERM))

        fit(tmp_path, [OwnSigterm(), Look()], epochs=1)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert set(seen) == {mine}


def test_options_choose_the_callbacks(tmp_path):
    def names(monitor="val/score", **options):
        built = CallbackOptions(**options).build(tmp_path, monitor=monitor, mode="max", seed=0)
        return [type(c).__name__ for c in built]

    plain = names(progress="none", ema_decay=None)
    assert "ExponentialAverage" not in plain
    assert "EpochLine" not in plain
    assert "ExponentialAverage" in names()
    assert "EarlyStopping" in names(early_stopping=3)
    assert "EarlyStopping" not in names(early_stopping=3, monitor=None)
    assert "SpeedBar" in names(progress="bar")
    assert "EpochLine" in names(progress="lines")


@pytest.mark.parametrize("progress", ["bar", "lines"])
def test_progress_says_the_speed(tmp_path, progress, caplog, capsys):
    caplog.set_level(logging.INFO)
    options = CallbackOptions(progress=progress, ema_decay=None)
    callbacks = options.build(tmp_path / "ckpt", monitor="val/score", mode="max", seed=0)
    trainer, module = fit(tmp_path, callbacks)
    if progress == "lines":
        assert "epoch 2/2" in caplog.text
        assert "img/s" in caplog.text
    else:
        bar = next(c for c in callbacks if isinstance(c, pl.callbacks.RichProgressBar))
        assert "img/s" in bar.get_metrics(trainer, module)


def test_a_resume_deletes_nothing_that_a_checkpoint_names_and_finds_its_best_again(tmp_path):
    """Lightning deletes the folder behind the path that a resumed state calls the best before."""
    fit(tmp_path, checkpoint_callbacks(tmp_path / "run", monitor="val/score", mode="max"), epochs=2)
    victim = tmp_path / "victim"
    victim.mkdir()
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    last = torch.load(moved / "last.ckpt", weights_only=True)
    assert len(last["callbacks"]) == 2
    for state in last["callbacks"].values():
        state["dirpath"] = str(moved)
        state["best_model_path"] = state["kth_best_model_path"] = str(moved / ".." / "victim")
        if state["best_k_models"]:
            state["best_k_models"] = {state["best_model_path"]: state["best_model_score"]}
    torch.save(last, moved / "last.ckpt")
    best, written = moved / "best.ckpt", (moved / "best.ckpt").read_bytes()
    saving = checkpoint_callbacks(moved, monitor="val/score", mode="max")
    fit(tmp_path, saving, epochs=4, ckpt_path=moved / "last.ckpt", weights_only=True)
    assert victim.is_dir()
    assert best.read_bytes() == written  # 0.5 of epoch 1, and neither NaN nor 0.3
    assert saving[0].best_model_path == str(best)


def test_one_file_is_deleted_and_no_folder(tmp_path):
    from isic.training.checkpoint import AtomicCheckpointIO

    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        AtomicCheckpointIO().remove_checkpoint(tmp_path / "folder")
    (tmp_path / "file").touch()
    AtomicCheckpointIO().remove_checkpoint(tmp_path / "file")
    AtomicCheckpointIO().remove_checkpoint("memory://elsewhere/file")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
