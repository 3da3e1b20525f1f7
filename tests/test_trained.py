"""Networks to distil from: where they may be, what they compute, and what is refused."""

import json

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

import nas
from nas import train
from nas.config import TrainCommandConfig
from nas.data import load_data
from nas.deploy import load_deployed
from nas.job import make_job
from nas.networks.weights import load_weights
from nas.recipes import TrainOverrides
from nas.trained import architecture_named, load_teacher, trial_of
from tests.helpers import randomise
from tests.searching import quick_latency, small_search

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", "unused", 0.25, 0)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Ten classes of 3x64x64, by the path of their file."""
    rng = np.random.default_rng(0)
    file = tmp_path_factory.mktemp("pictures") / "own.npz"
    np.savez(file, x=rng.integers(0, 256, (60, 64, 64, 3)).astype(np.uint8), y=np.arange(60) % 10)
    return file


@pytest.fixture(scope="module")
def of_pictures(pictures):
    return load_data(str(pictures), "unused", 0.25, 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two trials, the second of which failed."""
    from nas.training import loop
    from nas.training.failures import Diverged

    begun, epochs = [], loop.Training.epochs

    def second_fails(training):
        begun.append(training)
        if len(begun) == 2:
            raise Diverged("diverged: on purpose")
        return epochs(training)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Training, "epochs", second_fails)
        return small_search(tmp_path_factory.mktemp("runs"), run="some", budget=2, objectives=["error", "macs"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the command left of a network for digits."""
    where = tmp_path_factory.mktemp("trained")
    assert command(where, "train.epochs=4") == 0
    return where / "out"


@pytest.fixture(scope="module")
def squeezenet(tmp_path_factory):
    """torchvision's network for ten classes, and the file of its weights."""
    torch.manual_seed(0)
    model = randomise(torchvision.models.squeezenet1_1(num_classes=10)).eval()
    file = tmp_path_factory.mktemp("weights") / "squeezenet.pth"
    torch.save(model.state_dict(), file)
    return model, file


def command(where, *words):
    with quick_latency(where):
        return train.main(["arch=tiny", "threads=1", "latency.tolerance=1", f"out={where / 'out'}", *words])


def logits_of(network, data):
    with torch.no_grad():
        return network(data.normalize(data.test.x[:40]))


def ready(teacher):
    """Whether a network can be a teacher: in eval mode, without gradients."""
    return not any(module.training for module in teacher.modules()) and not any(
        parameter.requires_grad for parameter in teacher.parameters()
    )


# --- where they may be


def test_a_folder_that_the_command_left_is_a_teacher(folder, digits):
    teacher = load_teacher(str(folder), None, digits)
    assert ready(teacher)
    arch = nas.load_architecture(folder / "architecture.json")
    stored, _ = load_deployed(arch, folder / "model.safetensors", 10, (1, 8, 8))
    assert torch.equal(logits_of(teacher, digits), logits_of(stored.eval(), digits))
    right = float((teacher(digits.normalize(digits.test.x)).argmax(1) == digits.test.y).float().mean())
    assert right == pytest.approx(json.loads((folder / "metrics.json").read_text())["test_accuracy"])


def test_a_trial_of_a_run_is_a_teacher(run, digits):
    teacher = load_teacher(f"{run.path}:0", None, digits)
    assert ready(teacher)
    right = float((teacher(digits.normalize(digits.validation.x)).argmax(1) == digits.validation.y).float().mean())
    assert right == pytest.approx(run.trials["accuracy"][0])


@pytest.mark.parametrize("kind", ["torchvision", "zoo"])
def test_torchvisions_weights_make_a_teacher(squeezenet, of_pictures, kind):
    model, file = squeezenet
    teacher = load_teacher(f"{kind}/squeezenet1_1", str(file), of_pictures)
    assert ready(teacher)
    assert torch.allclose(logits_of(teacher, of_pictures), logits_of(model, of_pictures), rtol=1e-4, atol=1e-5)


def test_our_own_train_form_makes_a_teacher_too(tmp_path, digits):
    torch.manual_seed(3)
    network = nas.build(nas.load_architecture("lenet5"), num_classes=10, input_shape=(1, 8, 8)).eval()
    save_file(network.state_dict(), tmp_path / "train.safetensors")
    teacher = load_teacher("zoo/lenet5", str(tmp_path / "train.safetensors"), digits)
    assert torch.equal(logits_of(teacher, digits), logits_of(network, digits))


# --- what is refused


def refusal(spec, weights, data):
    with pytest.raises(ValueError) as error:
        load_teacher(spec, weights, data)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("spec", ["/nowhere", "nowhere", "resnet20", "hub/resnet20", "torchvision", "zoo"])
def test_what_is_not_there_is_refused_with_what_may_be(spec, digits):
    message = refusal(spec, None, digits)
    assert f"train.teacher={spec}" in message
    assert all(word in message for word in ("nas.train", "RUN:TRIAL", "zoo/NAME", "torchvision/NAME")) or (
        "train.teacher_weights" in message
    )


def test_runs_and_trials_that_are_not_there_are_refused(run, digits):
    assert "events.jsonl" in refusal("/nowhere:0", None, digits)
    assert "no trial 9" in refusal(f"{run.path}:9", None, digits)
    assert "1.safetensors" in refusal(f"{run.path}:1", None, digits)  # it failed


@pytest.mark.parametrize("kind", ["torchvision", "zoo"])
def test_networks_without_weights_are_refused(kind, of_pictures, tmp_path):
    spec = f"{kind}/squeezenet1_1"
    assert refusal(spec, None, of_pictures) == f"train.teacher={spec} needs train.teacher_weights=FILE"
    assert "/nowhere.pth" in refusal(spec, "/nowhere.pth", of_pictures)
    (tmp_path / "x.pth").write_bytes(b"no weights")
    assert "x.pth" in refusal(spec, str(tmp_path / "x.pth"), of_pictures)
    torch.save({"x": torch.ones(2)}, tmp_path / "x.pth")
    assert "x.pth" in refusal(spec, str(tmp_path / "x.pth"), of_pictures)


def test_unknown_names_are_refused_with_the_known_ones(squeezenet, of_pictures):
    _, file = squeezenet
    for kind in ("torchvision", "zoo"):
        message = refusal(f"{kind}/squeezenet9", str(file), of_pictures)
        assert "squeezenet9" in message and "squeezenet1_1" in message


def test_weights_for_other_classes_are_refused(squeezenet, pictures, tmp_path):
    with np.load(pictures) as arrays:
        np.savez(tmp_path / "three.npz", x=arrays["x"], y=arrays["y"] % 3)
    three = load_data(str(tmp_path / "three.npz"), "unused", 0.25, 0)
    message = refusal("torchvision/squeezenet1_1", str(squeezenet[1]), three)
    assert "squeezenet1_1 for 3 classes" in message


def test_a_network_for_other_images_is_refused(folder, of_pictures, digits, squeezenet):
    assert "model.safetensors" in refusal(str(folder), None, of_pictures)
    assert "cannot take images of (1, 8, 8)" in refusal("torchvision/squeezenet1_1", str(squeezenet[1]), digits)


def test_a_network_with_weights_of_its_own_takes_no_others(folder, run, squeezenet, digits):
    file = squeezenet[1]
    for spec in (str(folder), f"{run.path}:0"):
        message = refusal(spec, str(file), digits)
        assert f"train.teacher_weights={file}" in message and f"train.teacher={spec}" in message


def test_a_folder_without_a_network_is_refused(tmp_path, digits):
    assert "architecture.json" in refusal(str(tmp_path), None, digits)


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"teacher_weights": "x.pth"}, "train.teacher_weights=x.pth needs train.teacher"),
        ({"teacher": "zoo/lenet5"}, "train.teacher=zoo/lenet5 needs train.teacher_weights=FILE"),
    ],
)
def test_a_job_is_not_made_with_half_a_teacher(given, part):
    with pytest.raises(ValueError) as error:
        make_job(TrainCommandConfig(train=TrainOverrides(**given)))
    assert part in str(error.value)


# --- what it changes


def test_the_command_distils(folder, tmp_path, capsys):
    losses = []
    for number, more in enumerate(([], [f"train.teacher={folder}"])):
        where = tmp_path / str(number)
        where.mkdir()
        assert command(where, "seed=3", "train.epochs=1", *more) == 0
        losses.append(next(line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch 1")))
    recipe = json.loads((tmp_path / "1" / "out" / "metrics.json").read_text())["recipe"]
    assert (recipe["teacher"], recipe["teacher_share"]) == (str(folder), 0.5)
    assert losses[0] != losses[1]


def test_the_command_distils_from_torchvision(squeezenet, pictures, tmp_path, capsys):
    of_torchvision = ["train.teacher=torchvision/squeezenet1_1", f"train.teacher_weights={squeezenet[1]}"]
    more = [f"data={pictures}", "train.epochs=1", "train.batch_size=16"]
    assert command(tmp_path, *more, *of_torchvision) == 0, capsys.readouterr().err


# --- which architecture a word is


def test_words_for_architectures(folder, run, tmp_path):
    stored = nas.load_architecture(folder / "architecture.json")
    assert architecture_named(str(folder), 0) == architecture_named(str(folder / "architecture.json"), 9) == stored
    assert architecture_named("tiny", 5) == nas.load_space("tiny").sample(5)
    assert architecture_named("zoo/resnet20", 5) == architecture_named("resnet20", 0)
    assert architecture_named(f"{run.path}:0", 5).arch_id == run.trials["arch_id"][0]
    assert trial_of("tiny") is trial_of("a:b") is trial_of(":") is None
    with pytest.raises(ValueError, match="no trial 2"):
        trial_of(f"{run.path}:2")


def test_a_trained_form_is_taken_over_by_name(folder):
    """What `weights=` takes is what the command leaves beside the deploy form."""
    network = nas.build(nas.load_architecture(folder / "architecture.json"), num_classes=10, input_shape=(1, 8, 8))
    before = [parameter.clone() for parameter in network.parameters()]
    load_weights(network, folder / "train.safetensors")
    assert not any(torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True) if old.ndim > 1)
