"""Data sets that plug-ins register: torch datasets of any images, and arrays."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import IterableDataset

from nas.config import DataConfig
from nas.data import DATASETS, DatasetSource, Images, Source, StreamedImages, load_data
from tests.helpers import one_line_refusal
from tests.pictures import Items, noise


@pytest.fixture
def register(monkeypatch):
    def add(source):
        monkeypatch.setitem(DATASETS, "mine", lambda root: source)

    return add


def load(val_share=0.25, seed=0, **options):
    return load_data("mine", "nowhere", val_share, seed, DataConfig(**{"workers": 0, **options}))


def refusal_of(**options):
    message = one_line_refusal(load, **options)
    assert message.startswith("data=mine: ")
    return message


def pairs(count, make, classes=2):
    """Items, each of another image, whose labels take turns."""
    return [(make(i), i % classes) for i in range(count)]


def source_of(train, test=None, classes=("a", "b"), **more):
    return DatasetSource(Items(train), None if test is None else Items(test), classes, **more)


FORMS = {
    "PIL, colour": lambda i: Image.fromarray(noise(i, 6, 5, 3)),
    "PIL, grey": lambda i: Image.fromarray(noise(i, 6, 5)),
    "tensor of bytes": lambda i: torch.from_numpy(noise(i, 3, 6, 5)),
    "tensor of floats": lambda i: torch.from_numpy(noise(i, 2, 6, 5)).double() / 255,
    "array (H, W)": lambda i: noise(i, 6, 5),
    "array (H, W, C)": lambda i: noise(i, 6, 5, 3),
    "array of floats": lambda i: noise(i, 6, 5, 4).astype(np.float32),
}
CHANNELS = dict(zip(FORMS, (3, 1, 3, 2, 1, 3, 4), strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_images_of_every_form_are_read(register, form):
    make = FORMS[form]
    register(source_of(pairs(20, make), pairs(6, make), shift=3, flip=True))
    data = load()
    assert data.input_shape == (CHANNELS[form], 6, 5)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [15, 5, 6]
    assert (data.augmentation.shift, data.augmentation.flip) == (3, True)
    assert data.test.x.dtype == (torch.float32 if "float" in form else torch.uint8)
    for i, image in enumerate(data.test.x):
        expected = np.asarray(make(i))
        if "tensor" not in form:
            expected = expected.reshape(6, 5, -1).transpose(2, 0, 1)
        assert np.array_equal(image.numpy(), expected.astype(image.numpy().dtype))
    assert data.test.y.tolist() == [0, 1] * 3


def test_a_large_one_is_streamed_and_the_same(register):
    register(source_of(pairs(40, FORMS["PIL, colour"]), pairs(10, FORMS["PIL, colour"])))
    resident, streamed = load(), load(resident_gb=0, workers=1)
    for part in ("train", "validation", "test"):
        one, other = getattr(resident, part), getattr(streamed, part)
        assert isinstance(one, Images)
        assert isinstance(other, StreamedImages)
        assert torch.equal(one.x, torch.cat([batch.x for batch in other.batches(8)]))
        assert torch.equal(one.y, other.y)


def test_without_test_images_a_fifth_is_split_off_whatever_the_seed(register):
    register(source_of(pairs(50, FORMS["array (H, W)"])))
    first, other = load(seed=1), load(seed=2)
    assert [len(part) for part in (first.train, first.validation, first.test)] == [30, 10, 10]
    assert torch.equal(first.test.x, other.test.x)
    assert not torch.equal(first.validation.x, other.validation.x)


def test_mixed_sizes_become_the_most_common_or_what_is_asked_for(register):
    sizes = [(8, 6)] * 12 + [(20, 30)] * 8
    register(source_of([(noise(i, *size), i % 2) for i, size in enumerate(sizes)]))
    assert load().input_shape == (1, 8, 6)
    assert load(image_size=10).input_shape == (1, 10, 10)


def test_grey_images_among_coloured_ones_get_their_channels(register):
    grey, colour = FORMS["PIL, grey"], FORMS["PIL, colour"]
    register(source_of(pairs(20, grey), pairs(4, lambda i: colour(i) if i % 2 else grey(i))))
    data = load()
    assert data.input_shape == (3, 6, 5)
    first = data.test.x[0].numpy()
    assert all(np.array_equal(channel, noise(0, 6, 5)) for channel in first)


def test_a_random_dataset_is_read_the_same_by_any_worker(register):
    class Noisy(Items):
        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return image + torch.rand(1, 4, 4), label

    register(DatasetSource(Noisy(pairs(40, lambda i: torch.zeros(1, 4, 4))), None, ("a", "b")))
    alone, helped = (load(resident_gb=0, workers=workers).train for workers in (0, 2))
    for one, other in zip(alone.shuffled(8, 3, False), helped.shuffled(8, 3, False), strict=True):
        assert torch.equal(one.x, other.x)


def with_item(item):
    """Twenty good items, and this one as number 7."""
    items = pairs(20, FORMS["array (H, W)"])
    return [*items[:7], item, *items[8:]]


ARRAY = noise(0, 6, 5)


@pytest.mark.parametrize(
    ("item", "fragment"),
    [
        (KeyError("label_of_7"), "train[7]: KeyError: 'label_of_7'"),
        (OSError("disk\nfull"), "train[7]: OSError: disk"),
        (ValueError("no image"), "train[7]: no image"),
        ((ARRAY, 2), "train[7]: label 2 is not allowed; allowed: 0 to 1"),
        ((ARRAY, -1), "label -1"),
        ((ARRAY, "cat"), "train[7]: TypeError"),
        ((ARRAY, 0.5), "train[7]: TypeError"),
        (ARRAY, "train[7]"),
        ((None, 0), "image of type NoneType; allowed: PIL image, tensor, array"),
        ((torch.zeros(6, 5), 0), "shape (6, 5); allowed: tensor (C, H, W)"),
        ((np.zeros((6, 5, 1, 1)), 0), "shape (6, 5, 1, 1)"),
        ((np.zeros((0, 5)), 0), "shape (0, 5)"),
        ((ARRAY.astype(np.int64), 0), "int64; allowed: uint8"),
        ((np.full((6, 5), np.nan), 0), "without NaN"),
        ((ARRAY / 255, 0), "some images are bytes, others floats"),
    ],
)
def test_a_bad_item_is_named(register, item, fragment):
    register(source_of(with_item(item)))
    assert fragment in refusal_of()


def test_a_bad_test_item_is_named_in_a_worker_too(register):
    items = pairs(200, FORMS["array (H, W)"])
    register(source_of(items, [*items[:3], RuntimeError("gone")]))
    assert "data=mine: test[3]: RuntimeError: gone" in refusal_of(workers=1)


def test_channels_that_cannot_be_brought_together_are_refused(register):
    items = [(noise(i, 6, 5, 3 + i % 2), i % 2) for i in range(20)]
    register(source_of(items))
    assert "[3, 4] channels" in refusal_of()


def test_a_dataset_without_length_or_items_is_refused(register):
    class Endless(IterableDataset):
        def __iter__(self):
            return iter([])

    register(DatasetSource(Endless(), None, ("a", "b")))
    assert "train has no length" in refusal_of()
    register(source_of(pairs(20, FORMS["array (H, W)"]), []))
    assert "test has no items" in refusal_of()


def test_a_class_without_images_is_named(register):
    register(source_of(pairs(20, FORMS["array (H, W)"]), classes=("a", "b", "c")))
    assert "class 'c' has too few images" in refusal_of()


def test_a_function_that_fails_is_named(monkeypatch):
    def fails(root):
        raise KeyError("where")

    monkeypatch.setitem(DATASETS, "mine", fails)
    assert "KeyError: 'where'" in refusal_of()


def arrays(**changes):
    x, y = np.stack([noise(i, 1, 6, 5) for i in range(20)]), np.arange(20) % 2
    return Source(
        **{"x": x, "y": y, "x_test": x, "y_test": y, "classes": ("a", "b"), "shift": 1, "flip": False} | changes
    )


def test_arrays_are_taken_as_they_are(register):
    register(arrays())
    data = load(resident_gb=0)
    assert isinstance(data.train, Images)
    assert np.array_equal(data.test.x.numpy(), arrays().x)


@pytest.mark.parametrize(
    ("source", "fragment"),
    [
        ([1, 2], "gives a list; allowed: Source or DatasetSource"),
        (arrays(x=arrays().x.astype(np.float64)), "x float64 (20, 1, 6, 5)"),
        (arrays(x_test=arrays().x[:, 0]), "x_test uint8 (20, 6, 5)"),
        (arrays(y=np.arange(19)), "labels (19,)"),
        (arrays(y=np.arange(20) % 3), "labels int64 from 0 to 2"),
        (arrays(y_test=np.zeros(20)), "labels float64"),
    ],
)
def test_what_is_no_data_set_is_refused(register, source, fragment):
    register(source)
    assert fragment in refusal_of()
