"""What a recipe may ask of a training, one by one and all at once."""

import contextlib
import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torchvision.ops import StochasticDepth

import nas
from nas.architecture import Architecture
from nas.blocks import Auxiliary, Classifier, Conv, Reduce
from nas.data import Augmentation, ImageData, Images
from nas.job import check_recipe
from nas.networks.builder import build
from nas.networks.fading import FadingActivation
from nas.networks.fusing import fuse
from nas.recipes import TrainConfig
from nas.regularized import with_dropout
from nas.training import loop
from nas.training.augmentation import augment, cut_out, mixed, randaugmented, shifted
from nas.training.evaluation import evaluate
from nas.training.graphs import may_be_captured
from nas.training.loop import Training
from nas.training.losses import Labels, Loss
from nas.training.optimizer import schedule
from nas.training.precision import training_dtype
from tests.stripes import DEEP, TINY, equal_states, linear, network, never, run, stripe_bytes, stripe_data, stripe_job

pytestmark = pytest.mark.usefixtures("one_thread")
PLAIN = TrainConfig(epochs=2, batch_size=32, augment=False, precision="float32")
# Everything that draws at random or keeps a state.
EVERYTHING = {
    "epochs": 3,
    "batch_size": 32,
    "schedule": "one_cycle",
    "grad_clip": 1.0,
    "ema": 0.9,
    "class_weights": True,
    "shift": 1,
    "flip": True,
    "cutout": 0.25,
    "randaugment": 9,
    "mixup": 0.4,
    "dropout": 0.2,
    "drop_path": 0.3,
}


def plain(**more):
    return dataclasses.replace(PLAIN, **more)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@contextlib.contextmanager
def watched_steps(see):
    """Calls `see(optimizer)` before each step of any optimizer."""
    handle = register_optimizer_step_pre_hook(lambda optimizer, args, kwargs: see(optimizer))
    try:
        yield
    finally:
        handle.remove()


# --- one_cycle


@given(st.integers(2, 300))
def test_one_cycle_rises_for_30_percent_and_falls_to_almost_nothing(total):
    values = [schedule(step, total, plain(schedule="one_cycle")) for step in range(total)]
    assert values[0] == pytest.approx(1 / 25)
    assert values[-1] == pytest.approx(1 / 25e4)
    assert max(values) <= 1
    for step, (before, after) in enumerate(itertools.pairwise(values)):
        if 10 * (step + 1) <= 3 * (total - 1):
            assert after > before
        elif 10 * step >= 3 * (total - 1):
            assert after < before


@pytest.mark.parametrize("total", [60, 600])
def test_wsd_stays_at_its_peak_and_falls_in_the_last_sixth(total):
    config = plain(schedule="wsd", epochs=12, warmup_epochs=1.0)
    values = [schedule(step, total, config) for step in range(total + 1)]
    begin, end = total // 12 + 1, total * 5 // 6
    assert values[begin : end + 1] == pytest.approx([1.0] * (end + 1 - begin))
    assert values[0] < 0.5 and (np.diff(values[:begin]) > 0).all()
    assert (np.diff(values[end:]) < 0).all() and values[-1] == pytest.approx(0)


def test_a_longer_wsd_training_begins_as_a_shorter_one():
    short, long = (
        plain(schedule="wsd", epochs=6, warmup_epochs=1.0),
        plain(schedule="wsd", epochs=60, warmup_epochs=1.0),
    )
    assert [schedule(step, 60, short) for step in range(50)] == [schedule(step, 600, long) for step in range(50)]


def test_activations_fade_in_the_decay_of_wsd():
    data = stripe_data()
    reduced = Architecture((Conv(out_channels=4),), ((Reduce(out_channels=4, bottleneck_width=2),),), (Classifier(),))
    made = build(reduced, num_classes=data.num_classes, input_shape=data.input_shape)
    (module,) = [each for each in made.modules() if isinstance(each, FadingActivation)]
    training = Training(made, data, plain(schedule="wsd", epochs=12), 0, lambda: None)
    lams = [float(module.lam) for _ in training.epochs()]
    assert lams[:9] == [1.0] * 9 and lams[-1] == 0.0 and lams == sorted(lams, reverse=True)


def test_one_cycle_peaks_at_30_percent_whatever_the_warm_up():
    for warmup_epochs in (0.0, 2.0):
        config = plain(schedule="one_cycle", warmup_epochs=warmup_epochs)
        assert [schedule(step, 101, config) for step in (15, 30, 65)] == pytest.approx(
            [(1 / 25 + 1) / 2, 1, (1 + 1 / 25e4) / 2]
        )


def test_a_training_follows_one_cycle():
    rates = []
    config = plain(schedule="one_cycle", learning_rate=0.02)
    with watched_steps(lambda optimizer: rates.append([group["lr"] for group in optimizer.param_groups])):
        run(network(), stripe_data(96), config)
    assert rates == [[pytest.approx(0.02 * schedule(step, 6, config))] * 2 for step in range(6)]


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_the_optimizer_is_the_one_that_is_asked_for(name, kind):
    seen = []
    with watched_steps(seen.append):
        run(network(), stripe_data(96), plain(optimizer=name))
    assert len(seen) == 6 and {type(optimizer) for optimizer in seen} == {kind}


# --- grad_clip


def gradients(limit, optimizer="sgd"):
    """The gradient before each step, as one vector, and the network."""
    seen, model = [], network()

    def see(optimizer):
        seen.append(torch.cat([p.grad.flatten() for group in optimizer.param_groups for p in group["params"]]))

    with watched_steps(see):
        run(model, stripe_data(96), plain(grad_clip=limit, optimizer=optimizer, learning_rate=0.1))
    return torch.stack(seen), model


def test_the_optimizer_sees_no_gradient_longer_than_grad_clip():
    free, as_it_was = gradients(0.0)
    limit = float(free.norm(dim=1).min()) / 2
    clipped, changed = gradients(limit)
    assert clipped.norm(dim=1).tolist() == pytest.approx([limit] * 6, rel=1e-4)
    assert torch.allclose(clipped[0], free[0] * limit / free[0].norm(), rtol=1e-3, atol=1e-7)
    assert not equal_states(as_it_was, changed)


def test_a_limit_beyond_all_gradients_changes_nothing():
    free, as_it_was = gradients(0.0)
    clipped, same = gradients(float(free.norm(dim=1).max()) * 2)
    assert torch.equal(free, clipped)
    assert equal_states(as_it_was, same)


# --- ema


@settings(max_examples=12, deadline=None)
@given(decay=st.floats(0.01, 0.999), optimizer=st.sampled_from(["adamw", "sgd"]))
def test_what_ships_is_the_average_over_the_steps(decay, optimizer):
    model, seen = network(), []

    def note():
        seen.append({name: value.clone() for name, value in model.state_dict().items()})

    training = Training(model, stripe_data(96), plain(ema=decay, optimizer=optimizer), 0, note)
    list(training.epochs())
    note()
    expected = {name: value.double() for name, value in seen[0].items()}
    for step, weights in enumerate(seen[1:]):
        kept = min(decay, (1 + step) / (10 + step))
        expected = {name: kept * old + (1 - kept) * weights[name].double() for name, old in expected.items()}
    assert len(seen) == 7
    shipped = training.shipped.state_dict()
    averaged = [name for name, value in shipped.items() if value.is_floating_point() and not name.endswith("lam")]
    assert sum("running_" in name for name in averaged) >= 6
    for name in averaged:
        assert torch.allclose(shipped[name].double(), expected[name], rtol=1e-4, atol=1e-6), name
    assert not equal_states(training.shipped, model)


@pytest.mark.parametrize("ema", [0.0, 0.7])
def test_what_ships_fades_like_what_trains_is_in_eval_mode_and_can_be_fused(ema):
    model, data = network(), stripe_data(96)
    training = Training(model, data, plain(ema=ema, epochs=4), 0, never)
    lams = []
    for _ in training.epochs():
        assert not any(module.training for shown in (training.shipped, model) for module in shown.modules())
        of_each = [
            [float(module.lam) for module in shown.modules() if isinstance(module, FadingActivation)]
            for shown in (training.shipped, model)
        ]
        assert of_each[0] == of_each[1]
        lams += of_each[0]
    assert len(lams) == 4 and lams[0] > lams[1] > 0 and lams[-1] == 0
    x = data.normalize(data.validation.x)
    with torch.no_grad():
        assert torch.allclose(fuse(training.shipped)(x), training.shipped(x), atol=1e-5)


def test_without_ema_the_network_itself_ships():
    model = network()
    assert Training(model, stripe_data(), plain(), 0, never).shipped is model


def test_the_average_learns():
    model, data = network(), stripe_data(192)
    training = Training(model, data, TrainConfig(epochs=6, batch_size=16, ema=0.9), 0, never)
    list(training.epochs())
    assert evaluate(fuse(training.shipped), data, data.validation) > 0.9


# --- class_weights


@given(st.lists(st.integers(1, 20), min_size=2, max_size=6))
def test_class_weights_are_the_balanced_ones_of_scikit_learn(counts):
    y = np.repeat(np.arange(len(counts)), counts)
    weights = compute_class_weight("balanced", classes=np.arange(len(counts)), y=y)
    logits = torch.randn(len(y), len(counts), generator=generator())
    labels = torch.from_numpy(y)
    loss = Loss(plain(class_weights=True), tuple(counts), "cpu").of_logits(logits, Labels(labels))
    wanted = cross_entropy(logits, labels, weight=torch.tensor(weights, dtype=torch.float32), label_smoothing=0.1)
    assert float(loss) == pytest.approx(float(wanted), rel=1e-5)


def test_with_class_weights_a_rare_class_is_found():
    """Two normal distributions that overlap, one of them fifteen times as frequent."""

    def images(frequent, rare, seed):
        y = torch.tensor([0] * frequent + [1] * rare)
        x = torch.randn(len(y), generator=generator(seed)) + 1.5 * y
        return Images(x.reshape(-1, 1, 1, 1), y)

    train, validation = images(450, 30, 0), images(300, 300, 1)
    data = ImageData("rare", train, validation, validation, ("a", "b"), (0.0,), (1.0,), Augmentation(0, False))
    recall = {}
    for wanted in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
        run(model, data, plain(epochs=8, learning_rate=0.1, class_weights=wanted))
        with torch.no_grad():
            predicted = model(validation.x).argmax(1)
        recall[wanted] = float((predicted[validation.y == 1] == 1).float().mean())
    assert recall[False] < 0.4 < 0.6 < recall[True]


# --- mixup


@given(
    share=st.floats(0, 1),
    smoothing=st.sampled_from([0.0, 0.1, 0.5]),
    n=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_mixups_loss_is_the_cross_entropy_with_mixed_labels(share, smoothing, n, seed):
    rng = generator(seed)
    logits, y = torch.randn(n, 4, generator=rng), torch.randint(0, 4, (n,), generator=rng)
    partner = torch.randperm(n, generator=rng)
    loss = Loss(plain(label_smoothing=smoothing), (1, 1, 1, 1), "cpu").of_logits(logits, Labels(y, partner, share))
    one_hot = nn.functional.one_hot(y, 4).float()
    wanted = cross_entropy(logits, share * one_hot + (1 - share) * one_hot[partner], label_smoothing=smoothing)
    assert float(loss) == pytest.approx(float(wanted), rel=1e-4, abs=1e-6)


@given(alpha=st.floats(0.05, 10), n=st.integers(1, 12), seed=st.integers(0, 99))
def test_mixed_images_are_blends_with_their_partners(alpha, n, seed):
    x = torch.randn(n, 2, 3, 3, generator=generator(seed))
    blend, partner, share = mixed(x, alpha, generator(seed))
    assert 0 <= share <= 1
    assert sorted(partner.tolist()) == list(range(n))
    assert torch.allclose(blend, share * x + (1 - share) * x[partner])


def test_auxiliary_classifiers_learn_the_mixed_labels_too():
    arch = dataclasses.replace(TINY, stages=(TINY.stages[0], (Auxiliary(weight=0.5, features=8),)))
    torch.manual_seed(0)
    model = build(arch, num_classes=3, input_shape=(1, 8, 8), form="train").eval()
    x, labels = torch.randn(6, 1, 8, 8), Labels(torch.arange(6) % 3, torch.arange(6).roll(1), 0.3)
    loss = Loss(plain(), (2, 2, 2), "cpu")
    logits, ((weight, other),) = model.with_auxiliary(x)
    wanted = loss.of_logits(logits, labels) + weight * loss.of_logits(other, labels)
    assert loss(model, x, labels).item() == pytest.approx(wanted.item(), rel=1e-6)
    assert loss.of_logits(other, labels).item() != pytest.approx(loss.of_logits(other, Labels(labels.y)).item())


def test_a_training_with_mixup_blends_images_and_labels_alike(monkeypatch):
    """What the loss is told is what was done to the images."""
    blends, told = [], []

    def noted(x, *rest):
        blends.append((x, *mixed(x, *rest)))
        return blends[-1][1:]

    of_logits = Loss.of_logits
    monkeypatch.setattr(loop, "mixed", noted)
    monkeypatch.setattr(
        Loss, "of_logits", lambda self, logits, labels: told.append(labels) or of_logits(self, logits, labels)
    )
    seen, model = [], linear()
    model.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    run(model, stripe_data(96), TrainConfig(epochs=2, batch_size=32, mixup=0.5, precision="float32"))
    assert len(blends) == len(told) == len(seen) == 6
    assert len({share for *_, share in blends}) == 6
    for (x, blend, partner, share), labels, given_x in zip(blends, told, seen, strict=True):
        assert torch.equal(given_x, blend)
        assert torch.allclose(blend, share * x + (1 - share) * x[partner], atol=1e-6)
        assert (labels.share, labels.partner) == (share, partner)


# --- cutout


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(
    ("side", "share", "wanted"), [(9, 1 / 3, 3), (8, 0.25, 2), (8, 0.5, 4), (32, 0.5, 16), (12, 0.25, 3)]
)
def test_cutout_blanks_one_square_of_its_share_in_each_image(side, share, wanted, dtype):
    channels = torch.tensor([10, 200]).reshape(2, 1, 1)
    x = (torch.arange(80 * side * side).reshape(80, 1, side, side) % 2 * 40 + channels).to(dtype)
    before = x.clone()
    blanked = cut_out(x, share, generator())
    assert torch.equal(x, before) and blanked.shape == x.shape and blanked.dtype == dtype
    gone = blanked != x
    assert torch.equal(gone[:, 0], gone[:, 1])
    assert blanked[:, 0][gone[:, 0]].unique().tolist() == [30] and blanked[:, 1][gone[:, 1]].unique().tolist() == [220]
    heights, widths = gone[:, 0].any(2).sum(1), gone[:, 0].any(1).sum(1)
    assert torch.equal(gone[:, 0].sum((1, 2)), heights * widths), "no rectangle"
    assert int(heights.max()) == int(widths.max()) == wanted
    assert int(heights.min()) >= wanted // 2 and int(widths.min()) >= wanted // 2
    assert len({tuple(each.flatten().tolist()) for each in gone[:, 0]}) > 20, "always the same place"


@given(
    share=st.floats(0, 1),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.sampled_from([1, 2, 3]),
    dtype=st.sampled_from([torch.uint8, torch.float32]),
    seed=st.integers(0, 999),
)
def test_cutout_stays_within_the_range_of_the_images(share, height, width, channels, dtype, seed):
    x = torch.randint(0, 256, (4, channels, height, width), generator=generator(seed)).to(dtype)
    blanked = cut_out(x, share, generator(seed))
    low, high = x.amin((0, 2, 3), keepdim=True), x.amax((0, 2, 3), keepdim=True)
    assert ((blanked >= low) & (blanked <= high)).all()
    assert torch.equal(blanked, cut_out(x, share, generator(seed)))


# --- randaugment


def bytes_of(n=24, channels=3, side=12):
    return torch.randint(0, 256, (n, channels, side, side), generator=generator(5), dtype=torch.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("magnitude", [1, 9, 30])
def test_randaugment_is_decided_by_the_seed_and_keeps_bytes_bytes(channels, magnitude):
    x = bytes_of(channels=channels)
    before, made = x.clone(), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        made.append(randaugmented(x, magnitude))
    assert torch.equal(x, before)
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])
    assert all(each.shape == x.shape and each.dtype == torch.uint8 for each in made)


@pytest.mark.parametrize("channels", [2, 3])
def test_randaugment_is_refused_for_images_that_it_is_not_defined_for(channels):
    x = torch.zeros(4, channels, 8, 8, dtype=torch.float32 if channels == 3 else torch.uint8)
    data = dataclasses.replace(stripe_bytes(64), train=Images(x, torch.zeros(4, dtype=torch.int64)))
    with pytest.raises(ValueError, match=r"train\.randaugment=9 is not allowed.*grey or RGB"):
        check_recipe(TrainConfig(randaugment=9), data, "cpu")
    check_recipe(TrainConfig(randaugment=9, augment=False), data, "cpu")


def test_randaugment_stretches_digits_and_brings_them_back():
    x = bytes_of() // 16  # 0 to 15
    torch.manual_seed(0)
    changed = randaugmented(x, 9)
    assert changed.dtype == torch.uint8 and int(changed.max()) <= 15
    assert len(changed.unique()) > 8  # operations for 0 to 255 would leave next to nothing of it


def test_randaugments_magnitude_counts():
    made = []
    for magnitude in (2, 25):
        torch.manual_seed(3)
        made.append(randaugmented(bytes_of(), magnitude))
    assert not torch.equal(*made)


# --- augment


@given(
    shift=st.integers(0, 6),
    flip=st.booleans(),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    seed=st.integers(0, 999),
)
def test_a_shifted_image_is_a_crop_of_the_image_with_reflected_edges(shift, flip, height, width, seed):
    x = torch.randint(0, 256, (5, 2, height, width), generator=generator(seed), dtype=torch.uint8)
    rows, columns = min(shift, height - 1), min(shift, width - 1)
    for image, moved in zip(x, shifted(x, shift, flip, generator(seed)), strict=True):
        padded = np.pad(image.numpy(), ((0, 0), (rows, rows), (columns, columns)), mode="reflect")
        crops = [padded[:, i : i + height, j : j + width] for i in range(2 * rows + 1) for j in range(2 * columns + 1)]
        ways = [*crops, *(crop[:, :, ::-1] for crop in crops)] if flip else crops
        assert any((moved.numpy() == way).all() for way in ways)


@pytest.mark.parametrize("suits", [Augmentation(0, True), Augmentation(3, False)])
@pytest.mark.parametrize("shift", [None, 0, 2])
@pytest.mark.parametrize("flip", [None, False, True])
def test_the_recipes_shift_and_flip_beat_what_suits_the_data(suits, shift, flip):
    x = bytes_of(40)
    wanted = (suits.shift if shift is None else shift, suits.flip if flip is None else flip)
    changed = augment(x, plain(shift=shift, flip=flip), suits, generator(1))
    assert torch.equal(changed, shifted(x, *wanted, generator(1)))
    others = [shifted(x, each, mirror, generator(1)) for each in (0, 2, 3) for mirror in (False, True)]
    assert sum(torch.equal(changed, other) for other in others) == 1


CHANGES = [{"shift": 2}, {"flip": True}, {"cutout": 0.5}, {"randaugment": 9}, {"mixup": 1.0}]


def test_each_change_of_images_changes_the_training_unless_all_are_off():
    data = stripe_bytes(64)
    unchanged = network()
    run(unchanged, data, plain(epochs=1))
    for change in CHANGES:
        for wanted in (True, False):
            model = network()
            run(model, data, plain(epochs=1, augment=wanted, **change))
            assert equal_states(model, unchanged) is not wanted, change


def test_without_augment_nothing_is_changed_at_all():
    everything = {name: value for change in CHANGES for name, value in change.items()}
    first, second = network(), network()
    data = stripe_bytes(64, Augmentation(3, True))
    assert run(first, data, plain(**everything)) == run(second, data, plain())
    assert equal_states(first, second)


def test_images_are_changed_otherwise_in_every_epoch_and_by_every_seed(monkeypatch):
    draws = []
    monkeypatch.setattr(
        loop, "augment", lambda x, recipe, how, rng: draws.append((torch.rand(1, generator=rng), torch.rand(1))) or x
    )
    for seed in (3, 4):
        run(network(), stripe_data(32), TrainConfig(epochs=3, batch_size=32), seed)
    for place in (0, 1):  # from the generator of the images, and from the global one
        assert len({float(draw[place]) for draw in draws}) == 6


# --- distillation


def test_distillations_loss_is_hintons():
    x = torch.randn(7, 1, 8, 8, generator=generator())
    y = torch.arange(7) % 3
    student, teacher = linear(0), linear(1)
    config = plain(teacher_share=0.3, temperature=3.0)
    loss = Loss(config, (3, 2, 2), "cpu", teacher)(student, x, Labels(y))

    def softened(model):
        with torch.no_grad():
            return (model(x) / 3).softmax(1).double()

    known, own = softened(teacher), softened(student)
    divergence = float((known * (known / own).log()).sum(1).mean()) * 3**2
    hard = cross_entropy(student(x), y, label_smoothing=0.1).item()
    assert loss.item() == pytest.approx(0.7 * hard + 0.3 * divergence, rel=1e-5)


def test_a_teacher_is_left_as_it_was():
    teacher, data = network(5).eval(), stripe_data(96)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    list(Training(network(), data, plain(teacher_share=0.9), 0, never, teacher).epochs())
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not teacher.training


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_teacher_without_a_share_is_none(share):
    models = network(), network()
    for model, teacher in zip(models, (network(5).eval(), None), strict=True):
        list(Training(model, stripe_data(96), plain(teacher_share=share), 0, never, teacher).epochs())
    assert equal_states(*models) is (share == 0)


def test_who_learns_from_the_teacher_alone_says_what_it_says():
    data = stripe_data(192)
    wrong = dataclasses.replace(data, train=Images(data.train.x, (data.train.y + 1) % 3))
    teacher, student = network(1), network(2)
    run(teacher, wrong, plain(epochs=6, batch_size=16))
    config = plain(epochs=6, batch_size=16, teacher_share=1.0)
    list(Training(student, data, config, 0, never, teacher).epochs())
    misled = Images(data.validation.x, (data.validation.y + 1) % 3)
    assert evaluate(fuse(student), data, misled) > 0.9


# --- precision


def processor(monkeypatch, **has):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)


def test_fp16_is_refused_on_the_cpu(monkeypatch):
    processor(monkeypatch, avx512_bf16=True, avx512_fp16=True)
    with pytest.raises(ValueError) as error:
        training_dtype("fp16", "cpu")
    assert str(error.value) == (
        "train.precision=fp16 is not allowed: device=cpu has no instructions for it; allowed: auto, float32, bf16"
    )


@pytest.mark.parametrize("has", [{}, {"avx512_bf16": False, "avx512_f": True}])
def test_bf16_is_refused_where_the_processor_lacks_it(monkeypatch, has):
    processor(monkeypatch, **has)
    with pytest.raises(
        ValueError, match=r"^train\.precision=bf16 is not allowed: device=cpu .*; allowed: auto, float32$"
    ):
        Training(network(), stripe_data(), plain(precision="bf16"), 0, never)
    assert training_dtype("auto", "cpu", network()) == training_dtype("float32", "cpu") == torch.float32


@pytest.mark.parametrize("name", ["avx512_bf16", "amx_bf16", "bf16"])
def test_auto_is_bf16_for_dense_networks_where_the_processor_has_it(monkeypatch, name):
    processor(monkeypatch, **{name: True})
    grouped = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 8, 1, groups=2))
    assert training_dtype("auto", "cpu", network()) == torch.bfloat16
    assert training_dtype("auto", "cpu", grouped) == torch.float32
    assert training_dtype("bf16", "cpu", grouped) == torch.bfloat16
    assert training_dtype("float32", "cpu", network()) == torch.float32


@pytest.mark.parametrize(("precision", "wanted"), [("bf16", torch.bfloat16), ("float32", torch.float32)])
def test_a_training_is_in_its_precision_and_its_weights_stay_float32(monkeypatch, precision, wanted):
    processor(monkeypatch, avx512_bf16=True)
    model, data, seen = network(), stripe_data(192), set()
    convolution = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    hook = convolution.register_forward_hook(lambda _, args, output: seen.add(output.dtype))
    run(model, data, TrainConfig(epochs=6, batch_size=16, precision=precision))
    hook.remove()
    assert seen == {wanted}
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32, torch.int64}
    assert evaluate(fuse(model), data, data.validation) > 0.9


# --- memory_format


def test_the_layout_changes_no_more_than_the_order_of_sums():
    models, layouts = {}, {}
    for name in ("contiguous", "channels_last", "auto"):
        arch = with_dropout(DEEP, None, None)
        torch.manual_seed(0)
        model = build(arch, num_classes=3, input_shape=(1, 8, 8), form="train")
        convolution = [module for module in model.modules() if isinstance(module, nn.Conv2d)][1]
        convolution.register_forward_hook(lambda _, args, output, name=name: layouts.update({name: args[0].detach()}))
        run(model, stripe_data(96), plain(memory_format=name, optimizer="sgd"))
        models[name] = model
    assert layouts["contiguous"].is_contiguous() and not layouts["channels_last"].is_contiguous()
    assert layouts["channels_last"].is_contiguous(memory_format=torch.channels_last)
    assert equal_states(models["auto"], models["channels_last"])
    for first, second in zip(models["contiguous"].parameters(), models["channels_last"].parameters(), strict=True):
        assert torch.allclose(first, second, rtol=1e-3, atol=1e-4)


# --- dropout and drop_path


SHARES = st.none() | st.floats(0, 0.9)


@settings(deadline=None, max_examples=30)
@given(dropout=SHARES, drop_path=SHARES, seed=st.integers(0, 99))
def test_dropout_changes_the_train_form_only(dropout, drop_path, seed):
    arch = nas.load_space("resnet").sample(seed)
    changed = with_dropout(arch, dropout, drop_path)
    assert changed.deploy_id == arch.deploy_id
    assert (changed == arch) is (changed.arch_id == arch.arch_id)
    assert [type(block) for block in changed.blocks] == [type(block) for block in arch.blocks]
    if dropout is None and drop_path is None:
        assert changed == arch
    if dropout is not None:
        assert [block.dropout for block in changed.head] == [pytest.approx(dropout)]
    if drop_path is not None:
        shares = [block.drop_path for block in changed.blocks if hasattr(block, "drop_path")]
        assert shares == pytest.approx([drop_path * (i + 1) / len(shares) for i in range(len(shares))])


def random_layers(model):
    return [module.p for module in model.modules() if isinstance(module, nn.Dropout | StochasticDepth)]


def test_a_jobs_networks_have_the_recipes_dropout_while_they_train():
    data = stripe_data()
    with_it, without = (stripe_job(data, **more).build(DEEP) for more in ({"dropout": 0.25, "drop_path": 0.4}, {}))
    assert random_layers(with_it) == pytest.approx([0.2, 0.4, 0.25])
    assert random_layers(without) == []
    deployed = [
        build(arch, num_classes=3, input_shape=(1, 8, 8), form="deploy")
        for arch in (DEEP, with_dropout(DEEP, 0.25, 0.4))
    ]
    assert nas.count(deployed[0], (1, 8, 8)) == nas.count(deployed[1], (1, 8, 8))
    assert random_layers(deployed[1]) == []
    assert equal_states(with_it, without)  # the same weights to begin with


@pytest.mark.parametrize("option", ["dropout", "drop_path"])
def test_dropout_is_reproducible_and_draws_from_nobody_elses_generator(option):
    data, job = stripe_data(), stripe_job(stripe_data(), **{option: 0.5})
    models = [job.build(DEEP) for _ in range(3)]
    for model, seed, torchs in zip(models, (3, 3, 4), (10, 20, 10), strict=True):
        torch.manual_seed(torchs)
        before = torch.get_rng_state()
        run(model, data, plain(), seed)
        assert torch.equal(torch.get_rng_state(), before)
    assert equal_states(*models[:2]) and not equal_states(models[0], models[2])
    unregularized = stripe_job(data).build(DEEP)
    run(unregularized, data, plain(), 3)
    assert not equal_states(models[0], unregularized)


@pytest.mark.parametrize(
    ("option", "allowed"), [({}, True), ({"dropout": 0.1}, False), ({"drop_path": 0.1}, False), ({"dropout": 0}, True)]
)
def test_only_what_draws_nothing_at_random_may_be_captured(option, allowed):
    assert may_be_captured(stripe_job(stripe_data(), **option).build(DEEP)) is allowed


# --- all at once


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_with_every_option_the_same_seed_gives_equal_weights_bit_by_bit(optimizer, precision):
    data = stripe_bytes(96)
    job = stripe_job(data, **EVERYTHING, optimizer=optimizer, precision=precision)
    teacher, recipe = network(9).eval(), job.recipe(DEEP)
    trainings = []
    for seed, torchs in ((3, 10), (3, 20), (4, 10)):
        model = job.build(DEEP)
        torch.manual_seed(torchs)
        before = torch.get_rng_state()
        training = Training(model, data, recipe, seed, never, teacher)
        losses = [epoch.loss for epoch in training.epochs()]
        assert torch.equal(torch.get_rng_state(), before)
        assert all(map(math.isfinite, losses))
        trainings.append((model, training.shipped, losses))
    (first, first_shipped, losses), (again, again_shipped, same), (other, *_) = trainings
    assert losses == same
    assert equal_states(first, again) and equal_states(first_shipped, again_shipped)
    assert not equal_states(first, other) and not equal_states(first, first_shipped)
