"""Loader processes: whole batches by any way, and an end to every wait for them."""

import errno
import multiprocessing
import os
import pickle
import signal
import time

import numpy as np
import pytest
import torch

from isic.data.carrier import SMALL, Carrier
from isic.data.loader import BatchLoader, worker_failure
from isic.errors import ConfigError, DataError, IsicError
from isic.images.decode import ImageError
from isic.streams import warn_once
from isic.training.failures import memory_explained
from isic.workers import TIMEOUT, worker_timeout


def kill(made, number):
    """Send a signal to the processes of a loader."""
    for process in made._iterator._workers:
        os.kill(process.pid, number)


def alike(one, two):
    return set(one) == set(two) and all(
        torch.equal(one[k], two[k]) and one[k].stride() == two[k].stride() for k in one
    )


def test_batches_that_are_kept_stay_as_they_are(data32):
    """More of them than there are slots: the rest comes through the pipe."""
    size = {"batch_size": 16, "image_size": 64}
    kept = list(data32(num_workers=2, **size).val_dataloader())
    kept += list(data32(num_workers=1, **size, fold=1).train_dataloader())
    plain = list(data32(**size).val_dataloader()) + list(data32(**size, fold=1).train_dataloader())
    assert kept[0]["image"].nbytes > SMALL
    assert len(kept) > Carrier(1, 1).slots
    assert all(map(alike, kept, plain))
    kept[0]["image"] += 1  # theirs to change


def test_slots_are_used_again(data32):
    made = data32(num_workers=1, batch_size=16, image_size=64).train_dataloader()
    for batch in [b for _ in range(3) for b in made]:
        del batch
    taken = made.collate_fn._taken
    time.sleep(0.05)
    assert not taken.any()


def test_a_forked_process_gives_no_slot_back(data32):
    made = data32(num_workers=1, batch_size=16, image_size=64).train_dataloader()
    batch = next(iter(made))
    before = made.collate_fn._taken.sum()
    if not (pid := os.fork()):
        del batch
        os._exit(0)
    os.waitpid(pid, 0)
    assert made.collate_fn._taken.sum() >= before > 0


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_what_is_too_large_for_a_slot_goes_through_the_pipe(monkeypatch, layout):
    monkeypatch.setattr("isic.data.carrier.get_worker_info", lambda: type("I", (), {"id": 0}))
    image = torch.rand(4, 3, 64, 64).contiguous(memory_format=layout)
    batch = {"image": image, "row": torch.arange(4), "empty": torch.empty(0, 2)}
    for carrier in (Carrier(1, 10), Carrier(1, image.nbytes)):
        parcel = carrier(batch)
        assert (parcel.slot is None) == (carrier.slot_bytes < image.nbytes)
        assert alike(pickle.loads(pickle.dumps(parcel)), batch)


def test_neither_shared_memory_of_torch_nor_a_socket_is_needed(data32, monkeypatch):
    """/dev/shm of 64 MB in a container, TMPDIR of 81 characters: nothing of a batch needs them."""

    def refused(*_):
        raise RuntimeError("unable to allocate shared memory(shm)")

    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", refused)
    monkeypatch.setattr(multiprocessing.reduction, "DupFd", refused)
    made = list(data32(num_workers=2).train_dataloader())
    assert all(map(alike, made, data32().train_dataloader()))


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), PermissionError(13, "denied")])
def test_without_locks_this_process_decodes_and_says_so(data32, monkeypatch, caplog, error):
    warn_once.cache_clear()

    def refused(*_, **__):
        raise error

    context = multiprocessing.get_context("fork")
    monkeypatch.setattr(type(context), "Queue", refused)
    data = data32(num_workers=2)
    made = [data.train_dataloader(), data.val_dataloader()]
    assert [m.num_workers for m in made] == [0, 0]
    assert caplog.text.count("/dev/shm") == 1
    assert "--shm-size" in caplog.text
    assert len(list(made[0])) > 0


@pytest.mark.parametrize("part", ["train_dataloader", "val_dataloader"])
def test_a_killed_process_ends_the_wait_in_one_sentence(data32, part):
    made = getattr(data32(num_workers=2, batch_size=4), part)()
    with pytest.raises(IsicError) as caught, memory_explained({}):
        for _ in range(1000):
            for _ in made:
                kill(made, signal.SIGKILL)
    text = str(caught.value)
    assert "was killed (Killed)" in text
    assert "memory" in text
    assert "the same command goes on" in text
    assert "\n" not in text
    assert caught.value.__suppress_context__


def test_a_process_that_hangs_ends_the_wait_and_is_killed(data32, monkeypatch):
    monkeypatch.setenv(TIMEOUT, "0.5")
    before = set(multiprocessing.active_children())
    made = data32(num_workers=2, batch_size=4).train_dataloader()
    start = time.monotonic()
    with pytest.raises(IsicError, match=r"for 0\.5 s.*ISIC_WORKER_TIMEOUT"):
        for _ in range(1000):
            for _ in made:
                kill(made, signal.SIGSTOP)
    assert time.monotonic() - start < 5
    assert not set(multiprocessing.active_children()) - before
    monkeypatch.setenv(TIMEOUT, "30")
    assert len(list(made)) > 0  # with new ones


def test_other_errors_are_left_alone():
    assert worker_failure(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) == ""
    assert worker_failure(FileNotFoundError(2, "no such file")) == ""
    assert "ulimit" in worker_failure(OSError(errno.EMFILE, "Too many open files"))


@pytest.mark.parametrize("text", ["soon", "0", "-1", "inf", "nan"])
def test_a_timeout_that_is_none_is_refused(monkeypatch, text):
    monkeypatch.setenv(TIMEOUT, text)
    with pytest.raises(ConfigError, match=f"ISIC_WORKER_TIMEOUT.*{text}"):
        worker_timeout()


def test_two_loaders_at_once_do_not_share_slots(data32):
    data = data32(num_workers=1, batch_size=16, image_size=64)
    one = data.train_dataloader()
    two = BatchLoader(
        one.dataset,
        sampler=one.sampler,
        batch_size=None,
        num_workers=1,
        collate_fn=one.collate_fn,
        persistent_workers=True,
        multiprocessing_context="fork",
    )
    for a, b in zip(one, two, strict=True):
        assert alike(a, b)
        assert not np.shares_memory(a["image"].numpy(), b["image"].numpy())


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_does_not_decode_is_one_sentence(data32, monkeypatch, workers):
    def refused(*_, **__):
        raise ImageError("truncated")

    monkeypatch.setattr("isic.data.dataset.decode", refused)
    with pytest.raises(DataError) as caught:
        list(data32(num_workers=workers).train_dataloader())
    text = str(caught.value)
    assert text.startswith("cannot decode ")
    assert "truncated" in text
    assert "\n" not in text
