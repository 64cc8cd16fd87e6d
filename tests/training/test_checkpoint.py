"""Checkpoints load without code, come back bit for bit, and are refused with the reason."""

import logging
import os
import pickle
import subprocess
import zipfile

import pytest
import torch
from torch import nn

from isic.errors import CheckpointError, IsicError
from isic.models.network import LesionNetwork
from isic.training.checkpoint import AtomicCheckpointIO, load, load_weights, read, remove_litter

IMAGES = torch.randint(0, 256, (5, 3, 32, 32), generator=torch.Generator().manual_seed(0))
BATCH = {"image": IMAGES.to(torch.uint8)}


def outputs(classifier):
    with torch.no_grad():
        return classifier.eval()(BATCH)


def changed(trained32, tmp_path, **record):
    """The trained checkpoint with other entries under `isic`."""
    checkpoint = read(trained32.last)
    checkpoint["isic"] |= record
    torch.save(checkpoint, tmp_path / "changed.ckpt")
    return tmp_path / "changed.ckpt"


def test_it_loads_as_plain_tensors(trained32):
    for path in (trained32.last, trained32.best):
        assert torch.serialization.get_unsafe_globals_in_checkpoint(path) == []
        torch.load(path, weights_only=True)


def test_a_loaded_classifier_gives_the_same_outputs(trained32):
    again = load(trained32.last)
    assert torch.equal(outputs(again), outputs(trained32.classifier))
    assert again.classes == ("benign", "malignant")
    assert torch.equal(outputs(load(str(trained32.last))), outputs(again))


def test_it_holds_averaged_and_live_weights(trained32):
    checkpoint = read(trained32.last)
    average, live = checkpoint["state_dict"], checkpoint["current_model_state"]
    assert average.keys() == live.keys()
    assert any(not torch.equal(average[k], live[k]) for k in average)
    for key, value in trained32.classifier.state_dict().items():
        assert torch.equal(value, average[key]), key


def test_own_mean_and_std_travel_with_it(trained32, tmp_path):
    network = LesionNetwork(
        "test_resnet", n_logits=1, pretrained=False, image_size=32, mean=[0.1] * 3, std=[0.9] * 3
    )
    path = changed(trained32, tmp_path, network=network.arguments)
    assert load(path).network.mean.flatten().tolist() == pytest.approx([25.5] * 3)


class Payload:
    """Runs `call(*arguments)` when it is unpickled."""

    def __init__(self, call, *arguments):
        self.reduced = call, arguments

    def __reduce__(self):
        return self.reduced


def payloads(mark):
    """What is tried: name -> object that makes the file `mark` where its code runs."""
    touch = f"open({str(mark)!r}, 'w').close()"
    return {
        "os.system": Payload(os.system, f"touch {mark}"),
        "subprocess": Payload(subprocess.check_call, ["touch", str(mark)]),
        "eval": Payload(eval, f"__import__('pathlib').Path({str(mark)!r}).touch()"),
        "exec": Payload(exec, touch),
        "open": Payload(open, str(mark), "w"),
        "os.open": Payload(os.open, str(mark), os.O_CREAT),
        "as a key": {Payload(os.system, f"touch {mark}"): 1},
        "deep": {"network": [{"size": (1, Payload(exec, touch))}]},
        "a module": nn.Linear(2, 2),  # harmless, but its class would be imported
    }


def hidden(checkpoint, payload, kind, path):
    """Write a checkpoint with a payload inside, in one of torch's file formats."""
    checkpoint = {**checkpoint, "extra": payload}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(checkpoint["extra"]))
    else:
        torch.save(checkpoint, path, _use_new_zipfile_serialization=kind == "zip")
    return path


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("name", list(payloads("mark")))
def test_a_payload_runs_nothing(trained32, tmp_path, name, kind):
    mark = tmp_path / "mark"
    checkpoint = {"isic": read(trained32.last)["isic"], "state_dict": {}}
    path = hidden(checkpoint, payloads(mark)[name], kind, tmp_path / "evil.ckpt")
    for reader in (read, load, AtomicCheckpointIO().load_checkpoint):
        with pytest.raises(CheckpointError) as caught:
            reader(path)
        assert caught.value.exit_code == 4
        assert "weights_only" not in str(caught.value)  # torch's own words advise to switch it off
    assert not mark.exists()
    if kind == "zip":
        assert "it holds code, which was not run: " in str(caught.value)


def test_the_payloads_would_run(tmp_path):
    for name, payload in payloads(tmp_path / "mark").items():
        if name not in ("as a key", "deep", "a module"):
            pickle.loads(pickle.dumps(payload))
            assert (tmp_path / "mark").exists(), name
            (tmp_path / "mark").unlink()


def damaged(path, kind):
    data = path.read_bytes()
    if kind == "changed":
        with zipfile.ZipFile(path) as archive:
            start = archive.infolist()[0].header_offset + 60
        return data[:start] + bytes(40) + data[start + 40 :]
    return {
        "empty": b"",
        "torn": data[: len(data) // 2],
        "one byte short": data[:-1],
        "zeros": bytes(4096),
        "html": b"<!DOCTYPE html><html><body>404: not found</body></html>",
    }[kind]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("empty", "is empty"),
        ("torn", r"torn or changed, \d+ bytes"),
        ("one byte short", "torn or changed"),
        ("changed", "torn or changed|holds code"),
        ("zeros", "expected a zip archive of tensors, got 4096 bytes"),
        ("html", "expected a zip archive of tensors, got 55 bytes that start with b'<!DOCTYPE"),
    ],
)
def test_a_damaged_file_is_refused_with_the_reason(trained32, tmp_path, kind, reason):
    path = tmp_path / "damaged.ckpt"
    path.write_bytes(damaged(trained32.last, kind))
    with pytest.raises(CheckpointError, match=reason):
        read(path)


def test_no_file_and_no_checkpoint_of_ours(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        read(tmp_path / "none.ckpt")
    with pytest.raises(CheckpointError, match="no such file"):
        read(tmp_path)
    for content in ({"state_dict": {}}, {"isic": {}}, [1, 2], {"isic": {"classes": []}}):
        torch.save(content, tmp_path / "other.ckpt")
        with pytest.raises(CheckpointError, match=r"expected a key 'isic'.*model\.pretrained=PATH"):
            read(tmp_path / "other.ckpt")


def test_other_classes_are_refused(trained32):
    with pytest.raises(CheckpointError, match=r"predicts 2 classes \(benign, malignant\).*has 3"):
        load(trained32.last, classes=("a", "b", "c"))
    with pytest.raises(CheckpointError, match="nevus"):
        load(trained32.last, classes=("nevus", "malignant"))
    load(trained32.last, classes=("benign", "malignant"))


class Stranger(nn.Module):
    """A network of another package; it lets itself be built with anything."""

    built = 0

    def __init__(self, **arguments):
        super().__init__()
        type(self).built += 1
        self.network = LesionNetwork(**arguments)
        self.backbone, self.head = self.network.backbone, self.network.head

    def forward(self, batch):
        return self.network(batch)


def test_a_strange_network_is_built_only_on_trust(trained32, tmp_path, monkeypatch):
    import isic.errors

    monkeypatch.setattr(isic.errors, "Stranger", Stranger, raising=False)
    path = changed(trained32, tmp_path, network_class="isic.errors.Stranger")
    with pytest.raises(CheckpointError, match=r"nn\.Module of isic\.models.*trust=true"):
        load(path)
    assert Stranger.built == 0
    with pytest.raises(CheckpointError, match="does not fit"):  # other keys, but it was built
        load(path, trust=True)
    assert Stranger.built == 1


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "isic.models_of_mine.Network",
        "isic.models.backbone.create_backbone",
        "isic.models.backbone.Path",
        "isic.models.network.Absent",
        "isic.models.absent.Network",
        "LesionNetwork",
    ],
)
def test_what_is_no_network_of_ours_is_refused(trained32, tmp_path, name):
    with pytest.raises(CheckpointError, match=r"network_class: .*trust=true"):
        load(changed(trained32, tmp_path, network_class=name))


def test_arguments_that_its_network_does_not_take(trained32, tmp_path):
    arguments = read(trained32.last)["isic"]["network"]
    for wrong in ({"colour": 1}, {"backbone": "no_such_model"}):
        path = changed(trained32, tmp_path, network={**arguments, **wrong})
        with pytest.raises(CheckpointError, match="cannot be built here"):
            load(path)
    path = changed(trained32, tmp_path, network={**arguments, "views": ["one", "two"]})
    with pytest.raises(CheckpointError, match="does not fit its own architecture"):
        load(path)


def test_weights_of_another_network_are_refused(trained32):
    checkpoint = read(trained32.last)
    removed = checkpoint["state_dict"].pop("network.head.weight")
    with pytest.raises(CheckpointError, match=r"head\.weight"):
        load_weights(load(trained32.last), checkpoint, trained32.last)
    assert removed.shape[0] == 1


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(IsicError, match=r"No space left.*The checkpoint before it is whole"):
        AtomicCheckpointIO().save_checkpoint({"epoch": 2}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_litter_of_a_killed_writer_is_removed(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for name in (".tmp-17-last.ckpt", "last.ckpt"):
        (tmp_path / name).touch()
    remove_litter(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]
    assert ".tmp-17-last.ckpt" in caplog.text
