"""Starting from weights on disk: torchvision's files and our own, and what does not fit."""

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from nas.networks.builder import build
from nas.networks.fusing import fuse
from nas.networks.weights import load_weights
from nas.space_file import load_architecture
from tests.helpers import randomise, relative_difference

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = {
    "resnet18": "resnet18",
    "mobilenet_v2": "mobilenet_v2",
    "mobilenet_v3_small": "mobilenet_v3_small",
    "mnasnet1_0": "mnasnet1_0",
    "shufflenet_v2": "shufflenet_v2_x1_0",
    "squeezenet1_1": "squeezenet1_1",
    "densenet121": "densenet121",
    "googlenet": "googlenet",
}
BIG = {
    "alexnet": "alexnet",
    "vgg11": "vgg11",
    "vgg16": "vgg16",
    "resnet50": "resnet50",
    "resnext50_32x4d": "resnext50_32x4d",
    "wide_resnet50_2": "wide_resnet50_2",
    "mobilenet_v3_large": "mobilenet_v3_large",
    "inception_v3": "inception_v3",
}


def theirs(name: str) -> nn.Module:
    more = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None, **more)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return randomise(model).eval()


def ours(name: str, classes: int = 1000, side: int = 128):
    torch.manual_seed(1)
    return build(load_architecture(name), num_classes=classes, input_shape=(3, side, side)).eval()


def check(name: str, reference: str, tmp_path) -> None:
    model, file = theirs(reference), tmp_path / "weights.pth"
    torch.save(model.state_dict(), file)
    side = 299 if name == "inception_v3" else 128
    network = ours(name, side=side)
    load_weights(network, file)
    x = torch.randn(2, 3, side, side)
    with torch.no_grad():
        assert relative_difference(model.double()(x.double()), network.double()(x.double())) < 1e-9


@pytest.mark.parametrize(("name", "reference"), SMALL.items())
def test_torchvisions_files_fit_the_zoo(name, reference, tmp_path):
    check(name, reference, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "reference"), BIG.items())
def test_torchvisions_big_files_fit_the_zoo(name, reference, tmp_path):
    check(name, reference, tmp_path)


def test_another_number_of_classes_keeps_the_fresh_last_layer(tmp_path):
    model, file = theirs("resnet18"), tmp_path / "weights.pth"
    torch.save(model.state_dict(), file)
    network, fresh = ours("resnet18", 10), ours("resnet18", 10)
    load_weights(network, file)
    given, before = network.state_dict(), fresh.state_dict()
    names = [name for name in given if not name.endswith("num_batches_tracked")]
    kept = [name for name in names if torch.equal(given[name], before[name])]
    assert kept == names[-2:]
    assert torch.equal(given[names[0]], model.conv1.weight)


def test_a_file_without_auxiliary_heads_leaves_ours_fresh(tmp_path):
    model, file = theirs("googlenet"), tmp_path / "weights.pth"
    model.aux1 = model.aux2 = None
    model.aux_logits = False
    torch.save(model.state_dict(), file)
    network, x = ours("googlenet"), torch.randn(2, 3, 128, 128)
    load_weights(network, file)
    with torch.no_grad():
        assert relative_difference(model(x), network(x)) < 1e-4


def test_our_own_files_fit_by_safetensors_and_by_state_dict(tmp_path):
    network, x = randomise(ours("reducenet_20", 10, 32), 3), torch.randn(2, 3, 32, 32)
    torch.save(network.state_dict(), tmp_path / "a.pt")
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, tmp_path / "a.safetensors")
    for file in ("a.pt", "a.safetensors"):
        other = ours("reducenet_20", 10, 32)
        load_weights(other, tmp_path / file)
        with torch.no_grad():
            assert torch.equal(network(x), other(x))


def test_safetensors_of_another_network_are_refused_since_they_lost_their_order(tmp_path):
    for model, name in ((theirs("resnet18"), "theirs"), (fuse(ours("resnet18")), "exported")):
        save_file(
            {key: value.contiguous() for key, value in model.state_dict().items()}, tmp_path / f"{name}.safetensors"
        )
        with pytest.raises(ValueError, match=r"not of this network's train form"):
            load_weights(ours("resnet18"), tmp_path / f"{name}.safetensors")


class Sly:
    def __reduce__(self):
        return (print, ("this must never run",))


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (lambda: theirs("resnet34").state_dict(), "it has"),
        (lambda: theirs("mobilenet_v2").state_dict(), "it has"),
        (lambda: {"a": torch.zeros(1)}, "it has 1 tensors"),
        (lambda: [torch.zeros(1)], "no state dict"),
        (lambda: {"a": 3}, "no state dict"),
        (lambda: Sly(), "cannot be read as a state dict"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line_and_runs_no_code(content, part, tmp_path, capsys):
    torch.save(content(), tmp_path / "w.pth")
    network = ours("resnet18")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=part) as error:
        load_weights(network, tmp_path / "w.pth")
    assert "\n" not in str(error.value) and "w.pth" in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert "must never run" not in capsys.readouterr().out


def test_tensors_of_another_shape_are_refused_by_name(tmp_path):
    torch.save(theirs("resnet18").state_dict(), tmp_path / "w.pth")
    grey = build(load_architecture("resnet18"), num_classes=1000, input_shape=(1, 128, 128))
    with pytest.raises(ValueError, match=r"conv1\.weight is \(64, 3, 7, 7\) where .* is \(64, 1, 7, 7\)"):
        load_weights(grey, tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["absent.pth", "absent.safetensors", "junk.pth", "junk.safetensors"])
def test_unreadable_files_are_refused(name, tmp_path):
    if name.startswith("junk"):
        (tmp_path / name).write_bytes(b"\x80junk" * 9)
    with pytest.raises(ValueError, match=r"weights=.*cannot be read as a state dict"):
        load_weights(ours("resnet20", 10, 32), tmp_path / name)
