import dataclasses
import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nas.blocks import Auxiliary
from nas.data import Augmentation, ImageData, Images
from nas.networks.builder import build
from nas.networks.fading import FadingActivation, fading
from nas.networks.fusing import fuse
from nas.recipes import TrainConfig
from nas.training import failures, loop
from nas.training.augmentation import augment
from nas.training.evaluation import evaluate
from nas.training.failures import Diverged, TimedOut, deadline
from nas.training.loop import Training
from nas.training.losses import Labels, Loss, with_auxiliary
from nas.training.optimizer import schedule, warm_cosine
from tests.stripes import TINY, equal_states, linear, network, never, stripe_data, stripes
from tests.stripes import run as train

AS_SUITS = TrainConfig()
PLAIN = TrainConfig(epochs=2, batch_size=16, augment=False)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(model, data, config=PLAIN, seed=0, check_time=never):
    return train(model, data, config, seed, check_time)


# --- lam


def test_fading_follows_a_cosine_from_1_to_0():
    assert fading(0, 0.8) == 1
    assert [fading(progress, 0.8) for progress in (0.2, 0.4, 0.6)] == pytest.approx(
        [(1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]
    )


@given(st.floats(0.01, 0.99))
def test_fading_falls_and_is_exactly_0_from_its_share_on(share):
    values = [fading(share * i / 100, share) for i in range(101)]
    assert values[0] == 1
    assert all(after < before for before, after in itertools.pairwise(values))
    assert values[-1] == fading(share * 1.1, share) == fading(1, share) == 0


def lam_of(model):
    return [float(module.lam) for module in model.modules() if isinstance(module, FadingActivation)]


def test_training_fades_by_its_share_and_then_trains_the_deploy_form():
    model, data, seen = network(), stripe_data(96), []
    fading_layer = next(module for module in model.modules() if isinstance(module, FadingActivation))
    fading_layer.register_forward_hook(lambda *_: seen.append(float(fading_layer.lam)))
    run(model, data, TrainConfig(epochs=5, batch_size=24))
    assert seen == pytest.approx([fading(step / 20, 0.7) for step in range(20)])
    assert seen[0] == 1
    assert seen[14:] == [0.0] * 6
    assert min(seen[:14]) > 0


@pytest.mark.parametrize(("n", "epochs", "share"), [(16, 1, 0.99), (96, 1, 0.7), (96, 3, 0.01)])
def test_a_trained_network_has_lam_0_is_in_eval_mode_and_can_be_fused(n, epochs, share):
    model = network(fade_share=share)
    run(model, stripe_data(n), TrainConfig(epochs=epochs, batch_size=16))
    assert lam_of(model) == [0.0]
    assert not any(module.training for module in model.modules())
    fuse(model)


# --- auxiliary classifiers


def test_auxiliary_losses_are_added_with_their_weights_and_leave_the_deploy_form():
    torch.manual_seed(0)
    plain = TINY.stages[0]
    arch = dataclasses.replace(
        TINY, stages=(plain, (Auxiliary(weight=0.3, features=8),), plain, (Auxiliary(weight=0.5),))
    )
    model = build(arch, num_classes=3, input_shape=(1, 8, 8), form="train")
    x, y = torch.randn(6, 1, 8, 8), torch.arange(6) % 3
    model.eval()  # batch statistics would be those of two passes
    logits, auxiliary = with_auxiliary(model, x)
    assert torch.equal(logits, model(x))
    assert [weight for weight, _ in auxiliary] == [0.3, 0.5]
    losses = [
        nn.functional.cross_entropy(each, y, label_smoothing=0.1) for each in (logits, *(a for _, a in auxiliary))
    ]
    expected = losses[0] + 0.3 * losses[1] + 0.5 * losses[2]
    loss = Loss(TrainConfig(label_smoothing=0.1), (2, 2, 2), "cpu")(model, x, Labels(y))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    run(model, stripe_data(32))
    assert len(list(fuse(model).parameters())) == 2 * 4
    without = dataclasses.replace(TINY, stages=(plain, plain))
    assert arch.deploy_id == without.deploy_id
    assert arch.arch_id != without.arch_id


# --- schedule


def test_the_schedule_warms_up_in_equal_steps_and_then_falls_to_0():
    values = [warm_cosine(step, 100, 9) for step in range(100)]
    assert values[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert all(after < before for before, after in itertools.pairwise(values[9:]))
    assert 0 < values[-1] < 0.001


def test_the_schedule_without_warm_up_starts_at_its_peak():
    assert [warm_cosine(step, 4, 0) for step in range(4)] == pytest.approx(
        [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]
    )


@given(st.integers(1, 200), st.floats(0, 1))
def test_the_schedule_stays_above_0_and_at_most_1(total, share):
    values = [warm_cosine(step, total, share * total / 2) for step in range(total)]
    assert all(0 < value <= 1 for value in values)


class Recorder:
    """An optimizer class that notes its groups and the learning rate of each step."""

    def __init__(self, kind):
        self.steps, self.optimizers = [], []
        recorder = self

        class Recording(kind):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                recorder.optimizers.append(self)

            def step(self, closure=None):
                recorder.steps.append([group["lr"] for group in self.param_groups])
                return super().step(closure)

        self.kind = Recording


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_the_optimizer_follows_the_schedule(monkeypatch, name):
    kind = {"adamw": "AdamW", "sgd": "SGD"}[name]
    recorder = Recorder(getattr(torch.optim, kind))
    monkeypatch.setattr(torch.optim, kind, recorder.kind)
    config = TrainConfig(epochs=4, batch_size=24, optimizer=name, learning_rate=0.02, warmup_epochs=1)
    run(network(), stripe_data(96), config)
    assert len(recorder.steps) == 16
    for step, rates in enumerate(recorder.steps):
        assert rates == pytest.approx([0.02 * schedule(step, 16, config)] * len(rates))


def test_warm_up_is_at_most_half_of_a_training(monkeypatch):
    recorder = Recorder(torch.optim.AdamW)
    monkeypatch.setattr(torch.optim, "AdamW", recorder.kind)
    run(network(), stripe_data(96), TrainConfig(epochs=2, batch_size=24, learning_rate=1.0, warmup_epochs=50))
    rates = [step[0] for step in recorder.steps]
    assert rates == pytest.approx([warm_cosine(step, 8, 4) for step in range(8)])
    assert rates.index(max(rates)) == 4


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_weight_decay_leaves_out_norms_and_biases(monkeypatch, name):
    kind = {"adamw": "AdamW", "sgd": "SGD"}[name]
    recorder = Recorder(getattr(torch.optim, kind))
    monkeypatch.setattr(torch.optim, kind, recorder.kind)
    model = network()
    run(model, stripe_data(32), TrainConfig(epochs=1, batch_size=16, optimizer=name, weight_decay=0.3))
    (optimizer,) = recorder.optimizers
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay.keys() == {id(p) for p in model.parameters()}
    for parameter in model.parameters():
        assert decay[id(parameter)] == (0.3 if parameter.ndim > 1 else 0.0)
    assert set(decay.values()) == {0.0, 0.3}


def test_sgd_has_momentum_only_where_it_is_asked_for(monkeypatch):
    recorder = Recorder(torch.optim.SGD)
    monkeypatch.setattr(torch.optim, "SGD", recorder.kind)
    for momentum in (0.8, 0.0):
        config = TrainConfig(epochs=1, batch_size=16, optimizer="sgd", momentum=momentum)
        run(network(), stripe_data(32), config)
    groups = [optimizer.param_groups[0] for optimizer in recorder.optimizers]
    assert [(group["momentum"], group["nesterov"]) for group in groups] == [(0.8, True), (0.0, False)]


# --- augmentation


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(n=5, channels=3, height=8, width=6, dtype=torch.uint8):
    return torch.randint(0, 256, (n, channels, height, width), generator=generator(9)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shift", [0, 2])
def test_augment_keeps_shape_and_type_and_leaves_its_argument_alone(shift, flip, dtype):
    x = noise(dtype=dtype)
    before = x.clone()
    changed = augment(x, AS_SUITS, Augmentation(shift, flip), generator())
    assert changed.shape == x.shape
    assert changed.dtype == dtype
    assert torch.equal(x, before)


def test_augment_without_shift_and_flip_is_the_identity():
    x = noise()
    assert torch.equal(augment(x, AS_SUITS, Augmentation(0, False), generator()), x)


def test_augment_is_decided_by_its_generator():
    x, how = noise(50), Augmentation(2, True)
    first, again, other = (augment(x, AS_SUITS, how, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_augment_shifts_each_image_by_up_to_shift_pixels_in_every_direction():
    x = torch.zeros(600, 2, 9, 9, dtype=torch.uint8)
    x[:, :, 4, 3] = 200
    moved = augment(x, AS_SUITS, Augmentation(2, False), generator())
    assert torch.equal(moved[:, 0], moved[:, 1])
    assert (moved[:, 0].flatten(1) > 0).sum(1).eq(1).all()
    places = {(image, row - 4, column - 3) for image, row, column in torch.nonzero(moved[:, 0]).tolist()}
    assert len(places) == 600
    assert {place[1:] for place in places} == {(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)}


def test_augment_reflects_the_edges_of_a_shifted_image():
    x = torch.arange(1, 7, dtype=torch.uint8).expand(200, 1, 5, 6).contiguous()
    rows = {tuple(row) for row in augment(x, AS_SUITS, Augmentation(2, False), generator()).flatten(0, 2).tolist()}
    assert rows == {
        (3, 2, 1, 2, 3, 4),
        (2, 1, 2, 3, 4, 5),
        (1, 2, 3, 4, 5, 6),
        (2, 3, 4, 5, 6, 5),
        (3, 4, 5, 6, 5, 4),
    }


def test_augment_mirrors_about_half_of_the_images_left_to_right():
    image = torch.arange(12, dtype=torch.float32).reshape(1, 3, 4)
    changed = augment(image.expand(400, 1, 3, 4), AS_SUITS, Augmentation(0, True), generator())
    kept = [torch.equal(each, image) for each in changed]
    mirrored = [torch.equal(each, image.flip(2)) for each in changed]
    assert sum(kept) + sum(mirrored) == 400
    assert 140 < sum(mirrored) < 260


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (1, 8)])
def test_augment_of_images_smaller_than_the_shift(height, width):
    x = noise(height=height, width=width)
    assert augment(x, AS_SUITS, Augmentation(4, True), generator()).shape == x.shape


@pytest.mark.parametrize("wanted", [True, False])
def test_training_augments_only_where_it_is_asked_to(monkeypatch, wanted):
    calls = []
    monkeypatch.setattr(loop, "augment", lambda x, recipe, how, _: calls.append(how) or x)
    how = Augmentation(1, True)
    run(network(), stripe_data(32, how), dataclasses.replace(PLAIN, epochs=1, augment=wanted))
    assert calls == ([how] * 2 if wanted else [])


# --- train


@pytest.mark.parametrize(("name", "rate"), [("adamw", 0.02), ("sgd", 0.1)])
def test_a_tiny_network_learns(name, rate):
    model, data = network(), stripe_data(192)
    before = evaluate(model.eval(), data, data.validation)
    epochs = run(model, data, TrainConfig(epochs=6, batch_size=16, optimizer=name, learning_rate=rate))
    assert before < 0.6
    assert evaluate(fuse(model), data, data.validation) > 0.9
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4, 5, 6]
    assert epochs[0].loss > 1.3 * epochs[-1].loss


def test_the_fused_network_is_as_accurate_as_the_trained_one():
    model, data = network(), stripe_data(96)
    run(model, data)
    x = data.normalize(data.validation.x)
    assert torch.allclose(fuse(model)(x), model(x), atol=1e-5)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_the_same_seed_gives_equal_weights_bit_by_bit(name):
    config = TrainConfig(epochs=2, batch_size=16, optimizer=name)
    first, again, other = network(), network(), network()
    data = stripe_data(96, Augmentation(1, True))
    losses = [run(model, data, config, seed) for model, seed in ((first, 3), (again, 3), (other, 4))]
    assert equal_states(first, again)
    assert losses[0] == losses[1]
    assert not equal_states(first, other)


def test_training_does_not_depend_on_the_global_seed():
    data, models = stripe_data(96, Augmentation(1, True)), (network(), network())
    for model, seed in zip(models, (10, 20), strict=True):
        torch.manual_seed(seed)
        run(model, data, TrainConfig(epochs=1, batch_size=16))
    assert equal_states(*models)


def test_training_leaves_the_images_alone():
    data = stripe_data(96, Augmentation(1, True))
    run(network(), data, TrainConfig(epochs=1, batch_size=16))
    assert torch.equal(data.train.x, stripes(96, 0).x)
    assert torch.equal(data.train.y, stripes(96, 0).y)


def test_every_epoch_is_yielded_when_it_is_over_and_in_eval_mode():
    model, data = network(), stripe_data(32)
    epochs = Training(model, data, dataclasses.replace(PLAIN, epochs=3), 0, never).epochs()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert next(epochs).number == 1
    assert not model.training
    assert any(not torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert [epoch.number for epoch in epochs] == [2, 3]


def test_an_epoch_shows_each_image_at_most_once_in_full_batches():
    seen = []

    class Watching(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 2)

        def forward(self, x):
            seen.append(x.flatten().tolist())
            return self.layer(x.flatten(1))

    x, y = torch.arange(22.0).reshape(22, 1, 1, 1), torch.arange(22) % 2
    images = Images(x, y)
    data = ImageData("numbers", images, images, images, ("even", "odd"), (0.0,), (1.0,), Augmentation(0, False))
    run(Watching(), data, TrainConfig(epochs=2, batch_size=8, augment=False))
    assert [len(batch) for batch in seen] == [8] * 4
    first, second = seen[0] + seen[1], seen[2] + seen[3]
    assert len(set(first)) == len(set(second)) == 16
    assert first != second


def test_fewer_images_than_a_batch_are_one_batch():
    model = network()
    (epoch,) = run(model, stripe_data(12), TrainConfig(epochs=1, batch_size=64))
    assert math.isfinite(epoch.loss)


def test_label_smoothing_raises_the_lowest_loss():
    losses = {}
    for smoothing in (0.0, 0.3):
        config = TrainConfig(epochs=8, batch_size=16, augment=False, label_smoothing=smoothing)
        losses[smoothing] = run(linear(), stripe_data(96), config)[-1].loss
    assert losses[0.0] < 0.05
    assert losses[0.3] > 0.5


# --- what goes wrong


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_images_that_are_no_numbers_end_the_training(value):
    data = stripe_data(32)
    data.train.x[3, 0, 4, 4] = value
    with pytest.raises(Diverged, match=r"diverged.*epoch 1"):
        run(network(), data)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_huge_learning_rate_ends_the_training(name):
    config = TrainConfig(epochs=3, batch_size=16, optimizer=name, learning_rate=1e30, warmup_epochs=0)
    with pytest.raises(Diverged, match="diverged"):
        run(linear(), stripe_data(96), config)


def test_a_network_of_nan_outputs_is_not_evaluated():
    data, model = stripe_data(32), linear().eval()
    with torch.no_grad():
        model[1].weight[2, 5] = math.nan
    with pytest.raises(Diverged, match="not finite"):
        evaluate(model, data, data.validation)


class Clock:
    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


def test_a_deadline_raises_once_its_time_is_over(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(failures, "time", clock)
    check, endless = deadline(5), deadline(None)
    clock.now = 1004.9
    check()
    clock.now = 1005.1
    with pytest.raises(TimedOut, match=r"trials\.timeout=5 s"):
        check()
    clock.now = 1e9
    endless()


def test_a_deadline_ends_a_training_between_steps(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(failures, "time", clock)
    check, steps = deadline(10), []

    def tick():
        check()
        steps.append(clock.now)
        clock.now += 4

    with pytest.raises(TimedOut):
        run(network(), stripe_data(96), check_time=tick)
    assert len(steps) == 3


# --- evaluate


class Readout(nn.Module):
    """Says that an image is of the class that its first pixel names."""

    def forward(self, x):
        return nn.functional.one_hot(x[:, 0, 0, 0].long(), 4).float()


@pytest.mark.parametrize("batch_size", [1, 3, 8, 1000])
def test_accuracy_counts_every_image_once(batch_size):
    x = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3.0]).reshape(8, 1, 1, 1)
    images = Images(x, torch.tensor([0, 1, 2, 3, 3, 2, 2, 0]))
    data = ImageData("readout", images, images, images, ("a", "b", "c", "d"), (0.0,), (1.0,), Augmentation(0, False))
    assert evaluate(Readout(), data, images, batch_size=batch_size) == 5 / 8
    assert evaluate(Readout(), data, Images(x, images.y.roll(1)), batch_size=batch_size) == 2 / 8


def test_evaluating_normalizes_as_training_does():
    images = Images(torch.tensor([10.0, 13, 16, 19]).reshape(4, 1, 1, 1), torch.arange(4))
    data = ImageData("readout", images, images, images, ("a", "b", "c", "d"), (10.0,), (3.0,), Augmentation(0, False))
    assert evaluate(Readout(), data, images) == 1.0


def test_evaluating_changes_nothing():
    model, data = network(), stripe_data(32)
    run(model, data)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    accuracies = {evaluate(model, data, data.validation, batch_size=size) for size in (7, 99, 1000)}
    assert len(accuracies) == 1
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
