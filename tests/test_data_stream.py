"""Streamed images: they are what images in memory are, whoever reads them."""

import pickle
import time
from dataclasses import replace
from multiprocessing import active_children

import numpy as np
import pytest
import torch

from nas.config import DataConfig
from nas.data import load_data
from nas.data.images import Images, resized, spread_over
from nas.data.stream import StreamedImages
from nas.data.workers import read_batches
from tests.pictures import noise, write_image, write_noise

STREAM = 0.0  # resident_gb of which any data set is too large


def load(folder, **options):
    return load_data(str(folder), "nowhere", 0.25, 0, DataConfig(**{"workers": 0, **options}))


def everything(batches):
    batches = list(batches)
    return torch.cat([batch.x for batch in batches]), torch.cat([batch.y for batch in batches])


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(everything(one), everything(other), strict=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """60 pictures of three classes, most of 12x10 and some of 30x20."""
    root = tmp_path_factory.mktemp("pictures")
    write_noise(root, {"ant": 20, "bee": 15, "cow": 10}, 12, 10, 3)
    return write_noise(root, {"ant": 5, "cow": 10}, 30, 20, 3, first=100)


@pytest.fixture(scope="module")
def streamed(folder):
    return load(folder, resident_gb=STREAM).train


# --- what is streamed


def test_data_of_more_than_resident_gb_is_streamed_and_other_is_not(folder):
    size = 60 * 3 * 12 * 10 / 1e9
    for part in ("train", "validation", "test"):
        assert isinstance(getattr(load(folder, resident_gb=size * 0.99), part), StreamedImages)
        assert isinstance(getattr(load(folder, resident_gb=size), part), Images)


def test_bytes_are_counted_as_the_images_are_used(folder):
    assert isinstance(load(folder, image_size=40, resident_gb=60 * 3 * 12 * 10 / 1e9).train, StreamedImages)
    assert isinstance(load(folder, image_size=4, resident_gb=60 * 3 * 4 * 4 / 1e9).train, Images)


@pytest.mark.parametrize("image_size", [None, 16])
def test_streamed_data_are_the_resident_data(folder, image_size):
    resident, streamed = load(folder, image_size=image_size), load(folder, image_size=image_size, resident_gb=STREAM)
    for part in ("train", "validation", "test"):
        one, other = getattr(resident, part), getattr(streamed, part)
        assert len(one) == len(other) > 0
        assert one.shape == other.shape
        assert same(one.batches(7), other.batches(7))
        assert torch.equal(one.spread(9), other.spread(9))
        assert torch.equal(one.y, other.y)
    assert (resident.mean, resident.std) == (streamed.mean, streamed.std)
    assert resident.class_counts == streamed.class_counts
    assert (resident.input_shape, resident.augmentation) == (streamed.input_shape, streamed.augmentation)


def test_an_epoch_without_crops_is_that_of_the_resident_data(folder, streamed):
    resident = load(folder).train
    assert same(resident.shuffled(8, 3, augment=True), streamed.shuffled(8, 3, augment=False))


def test_labels_stay_with_their_images(streamed):
    first = {
        image.numpy().tobytes(): int(label) for image, label in zip(*everything(streamed.batches(10)), strict=True)
    }
    assert len(first) == len(streamed)
    for image, label in zip(*everything(streamed.shuffled(5, 1, augment=False)), strict=True):
        assert first[image.numpy().tobytes()] == int(label)


# --- batches


@pytest.fixture
def numbered():
    """37 images in memory that each carry their number."""
    y = torch.arange(37)
    return Images(y.to(torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous(), y)


def test_batches_hold_all_images_in_order(numbered):
    batches = list(numbered.batches(10))
    assert [len(batch) for batch in batches] == [10, 10, 10, 7]
    assert torch.equal(torch.cat([batch.y for batch in batches]), numbered.y)
    assert all(torch.equal(batch.x[:, 0, 0, 0], batch.y.to(torch.uint8)) for batch in batches)


def test_an_epoch_is_full_batches_in_the_order_of_its_seed(numbered):
    order = torch.randperm(37, generator=torch.Generator().manual_seed(5))
    batches = list(numbered.shuffled(10, 5, augment=True))
    assert [batch.y.tolist() for batch in batches] == [part.tolist() for part in order.split(10)[:3]]
    assert all(torch.equal(batch.x[:, 0, 0, 0], batch.y.to(torch.uint8)) for batch in batches)
    other = [batch.y.tolist() for batch in numbered.shuffled(10, 6, augment=True)]
    assert other != [batch.y.tolist() for batch in batches]


def test_fewer_images_than_a_batch_are_one_batch(numbered):
    (batch,) = numbered.shuffled(100, 0, augment=False)
    assert sorted(batch.y.tolist()) == list(range(37))


@pytest.mark.parametrize(("images", "count"), [(10, 4), (511, 256), (7, 7), (3, 100), (1, 1)])
def test_a_spread_is_even(images, count):
    chosen = spread_over(images, count)
    steps = chosen.diff(prepend=torch.tensor([chosen[0] - images // len(chosen)]))
    assert len(chosen) == min(images, count)
    assert chosen[0] == 0
    assert 0 < images - chosen[-1] <= steps.max()
    assert steps.max() - steps.min() <= 1


# --- determinism


@pytest.mark.parametrize("augment", [False, True])
def test_the_number_of_workers_changes_nothing(streamed, augment):
    alone = list(streamed.shuffled(16, 4, augment))
    for workers in (1, 2):
        assert same(alone, replace(streamed, workers=workers).shuffled(16, 4, augment))


def test_another_seed_is_another_order_and_other_crops(streamed):
    first, again, other = (everything(streamed.shuffled(36, seed, augment=True)) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])
    one = {image.numpy().tobytes() for image in first[0]}
    again_by_chance = one & {image.numpy().tobytes() for image in other[0]}
    assert len(again_by_chance) < 6  # pictures of 12x10 have few crops


def test_no_two_images_have_the_same_crop(tmp_path):
    for name in ("a", "b"):
        for i in range(10):
            write_image(tmp_path / name / f"{i}.png", noise(0, 20, 20))
    images, _ = everything(load(tmp_path, resident_gb=STREAM).train.shuffled(100, 0, augment=True))
    assert len({image.numpy().tobytes() for image in images}) == len(images)


def test_crops_keep_at_least_half_of_a_picture(tmp_path):
    ramp = np.arange(200, dtype=np.uint8)[None].repeat(200, 0)  # a pixel says where it comes from
    for name in ("a", "b"):
        for i in range(20):
            write_image(tmp_path / name / f"{i}.png", ramp)
    train = load(tmp_path, image_size=100, resident_gb=STREAM).train
    images, _ = everything(train.shuffled(24, 0, augment=True))
    assert images.shape == (24, 1, 100, 100)
    width = (images[:, 0, 0, -1].int() - images[:, 0, 0, 0].int()).float() / 200
    assert width.min() > (0.5 * 0.75) ** 0.5 - 0.03
    assert width.max() <= 1.0
    assert width.std() > 0.03


@pytest.mark.parametrize("workers", [0, 2])
def test_no_random_numbers_of_the_process_are_drawn(streamed, workers):
    before = torch.random.get_rng_state()
    list(replace(streamed, workers=workers).shuffled(16, 0, augment=True))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_streamed_images_can_be_sent_to_other_processes(streamed):
    sent = pickle.loads(pickle.dumps(streamed))  # noqa: S301
    assert same(sent.batches(50), streamed.batches(50))


# --- processes


def wait_until_only(known):
    end = time.monotonic() + 20
    while (more := set(active_children()) - set(known)) and time.monotonic() < end:
        time.sleep(0.02)
    return more


def test_workers_end_with_an_iterator_that_is_abandoned(streamed):
    known = active_children()
    batches = replace(streamed, workers=2).shuffled(4, 0, augment=True)
    next(batches)
    assert len(set(active_children()) - set(known)) == 2
    del batches
    assert not wait_until_only(known)


def threads_in_use(numbers):
    return torch.tensor([torch.get_num_threads() for _ in numbers])


@pytest.mark.parametrize("workers", [0, 1])
def test_reading_takes_one_thread(workers):
    torch.set_num_threads(2)
    try:
        found = list(read_batches(threads_in_use, [[0], [1]], workers))
        after = torch.get_num_threads()
    finally:
        torch.set_num_threads(1)
    assert [each.tolist() for each in found] == [[1], [1]]
    assert after == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_is_lost_in_the_midst_of_an_epoch_is_named(tmp_path, workers):
    write_noise(tmp_path, {"a": 20, "b": 20}, 8, 8)
    train = load(tmp_path, resident_gb=STREAM, workers=workers).train
    lost = tmp_path / "a" / "0003.png"
    for file in tmp_path.rglob("*.png"):
        file.write_bytes(file.read_bytes()[:60])
    known, batches = active_children(), train.batches(4)
    with pytest.raises(ValueError, match="cannot be read") as refused:
        list(batches)
    message = str(refused.value)
    assert "\n" not in message
    assert f"image {lost.parent.parent}" in message
    del refused, batches
    assert not wait_until_only(known)


# --- resizing


def test_a_size_that_is_right_is_left_alone():
    x = torch.from_numpy(noise(0, 5, 3, 6, 7))
    assert resized(x, (6, 7)) is x


def test_images_are_resized_alike_one_by_one_and_together():
    for x in (torch.from_numpy(noise(0, 5, 3, 60, 70)), torch.rand(5, 3, 60, 70)):
        together = resized(x, (13, 11))
        assert together.dtype == x.dtype
        assert torch.equal(together, torch.stack([resized(each, (13, 11)) for each in x]))


def test_resizing_is_antialiased():
    stripes = torch.tensor([0, 255], dtype=torch.uint8).repeat(32).expand(1, 64, 64)
    small = resized(stripes, (8, 8))
    assert small.float().sub(127.5).abs().max() < 20
