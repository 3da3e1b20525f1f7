import itertools
import os
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from nas.config import DataConfig
from nas.data import DATASETS, load_data
from nas.data.files import read_npz
from tests.helpers import one_line_refusal

DATA_ROOT = os.environ.get("NAS_DATA_ROOT")
needs_data = pytest.mark.skipif(not DATA_ROOT, reason="NAS_DATA_ROOT is not set: no torchvision data sets at hand")


def load(data, seed=0, val_share=0.2, root="nowhere"):
    return load_data(str(data), str(root), val_share, seed)


def refusal_of(data, **more):
    return one_line_refusal(load, data, **more)


def parts(data):
    return data.train, data.validation, data.test


def numbered_images(n, side=6):
    """Images that each carry their own number, so that a split can be followed."""
    x = np.zeros((n, side, side), dtype=np.int64)
    x[:, 0, 0], x[:, 0, 1] = np.arange(n) // 256, np.arange(n) % 256
    return x


def numbers_of(images):
    return [int(high) * 256 + int(low) for high, low in images.x[:, 0, 0, :2].tolist()]


@pytest.fixture
def save(tmp_path):
    def write(name="images.npz", **arrays):
        file = tmp_path / name
        np.savez(file, **arrays)
        return file

    return write


# --- digits


def test_digits_sizes_shape_and_types():
    data = load("digits")
    assert [len(part.y) for part in parts(data)] == [1077, 270, 450]
    assert data.input_shape == (1, 8, 8)
    assert data.classes == tuple("0123456789")
    assert data.num_classes == 10
    for part in parts(data):
        assert part.x.dtype == torch.uint8
        assert part.y.dtype == torch.int64
        assert part.x.shape == (len(part.y), 1, 8, 8)


@pytest.mark.parametrize("seed", [0, 7])
def test_the_digits_test_set_is_the_last_450_in_file_order(seed):
    bunch, test = load_digits(), load("digits", seed=seed).test
    assert np.array_equal(test.x[:, 0].numpy(), bunch.images[-450:])
    assert np.array_equal(test.y.numpy(), bunch.target[-450:])


def test_digits_train_and_validation_are_together_the_rest_of_the_file():
    bunch, data = load_digits(), load("digits")
    rows = [np.column_stack([part.x.flatten(1).numpy(), part.y.numpy()]) for part in (data.train, data.validation)]
    found = np.concatenate(rows)
    wanted = np.column_stack([bunch.data[:-450], bunch.target[:-450]])
    assert sorted(map(tuple, found.astype(int))) == sorted(map(tuple, wanted.astype(int)))


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_digits_validation_is_stratified(share):
    data = load("digits", val_share=share)
    train, held_out = np.bincount(data.train.y, minlength=10), np.bincount(data.validation.y, minlength=10)
    assert np.abs(held_out - share * (train + held_out)).max() <= 1


# --- splits


def test_splits_are_disjoint_and_complete(save):
    file = save(x=numbered_images(600), y=np.arange(600) % 3)
    numbers = [numbers_of(part) for part in parts(load(file))]
    assert [len(part) for part in numbers] == [384, 96, 120]
    assert sorted(itertools.chain(*numbers)) == list(range(600))


def test_labels_stay_with_their_images(save):
    file = save(x=numbered_images(600), y=np.arange(600) % 3)
    for part in parts(load(file)):
        assert [number % 3 for number in numbers_of(part)] == part.y.tolist()


def test_all_three_splits_are_stratified(save):
    y = np.repeat([0, 1, 2], [400, 150, 50])
    for part, share in zip(parts(load(save(x=numbered_images(600), y=y))), (0.64, 0.16, 0.2), strict=True):
        assert np.abs(np.bincount(part.y) - share * np.array([400, 150, 50])).max() <= 1


def test_the_seed_decides_the_validation_set_and_nothing_else(save):
    file = save(x=numbered_images(300), y=np.arange(300) % 3)
    first, again, other = load(file, seed=1), load(file, seed=1), load(file, seed=2)
    assert numbers_of(first.validation) == numbers_of(again.validation)
    assert numbers_of(first.train) == numbers_of(again.train)
    assert set(numbers_of(first.validation)) != set(numbers_of(other.validation))
    assert numbers_of(first.test) == numbers_of(other.test)


def test_the_share_of_validation_leaves_the_test_set_alone(save):
    file = save(x=numbered_images(300), y=np.arange(300) % 3)
    small, large = load(file, val_share=0.1), load(file, val_share=0.5)
    assert [len(small.validation.y), len(large.validation.y)] == [24, 120]
    assert numbers_of(small.test) == numbers_of(large.test)


def test_normalized_training_images_have_mean_0_and_deviation_1_by_channel(save):
    rng = np.random.default_rng(0)
    x = rng.normal([10, -3, 0.5], [5, 0.1, 2], size=(90, 6, 6, 3))
    data = load(save(x=x, y=np.arange(90) % 3))
    normal = data.normalize(data.train.x)
    assert normal.dtype == torch.float32
    assert torch.allclose(normal.mean((0, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(normal.std((0, 2, 3)), torch.ones(3), atol=1e-4)


def test_the_statistics_are_those_of_the_training_images_alone(save):
    file = save(x=np.random.default_rng(0).normal(size=(60, 6, 6)), y=np.arange(60) % 2)
    first, other = load(file, seed=1), load(file, seed=2)
    assert first.mean[0] == pytest.approx(float(first.train.x.double().mean()), rel=1e-6)
    assert first.mean != other.mean


def test_a_constant_channel_normalizes_to_zeros(save):
    x = np.stack([numbered_images(60), np.full((60, 6, 6), 9)], axis=-1)
    data = load(save(x=x, y=np.arange(60) % 2))
    assert (data.normalize(data.train.x)[:, 1] == 0).all()


def test_class_counts_are_of_the_training_images(save):
    y = np.repeat([0, 1, 2], [400, 150, 50])
    data = load(save(x=numbered_images(600), y=y))
    assert data.class_counts == (256, 96, 32)
    assert sum(data.class_counts) == len(data.train)


# --- image_size


def with_size(data, image_size):
    return load_data(str(data), "nowhere", 0.2, 0, DataConfig(image_size=image_size))


@pytest.mark.parametrize("side", [4, 16])
def test_named_data_are_resized(side):
    plain, data = load("digits"), with_size("digits", side)
    assert data.input_shape == (1, side, side)
    assert data.augmentation.shift == side // 8
    for part, before in zip(parts(data), parts(plain), strict=True):
        assert part.x.dtype == torch.uint8
        assert torch.equal(part.y, before.y)
        difference = part.x.float().mean((1, 2, 3)) - before.x.float().mean((1, 2, 3))
        assert difference.abs().max() < 1


def test_the_size_that_images_have_changes_nothing():
    plain, data = load("digits"), with_size("digits", 8)
    assert all(torch.equal(part.x, before.x) for part, before in zip(parts(data), parts(plain), strict=True))
    assert data.augmentation == plain.augmentation


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_npz_images_are_resized_whatever_their_ratio(save, dtype):
    ramp = np.linspace(0, 200, 12).astype(dtype)
    data = with_size(save(x=np.broadcast_to(ramp, (30, 6, 12)), y=np.arange(30) % 2), 6)
    assert data.train.x.dtype == torch.from_numpy(ramp).dtype
    assert data.input_shape == (1, 6, 6)
    assert (data.train.x.float() - data.train.x[:1, :, :1].float()).abs().max() == 0
    assert (data.train.x[0, 0, 0].float().diff() > 20).all()


# --- names


def test_an_unknown_name_lists_the_known():
    message = refusal_of("digitz")
    assert "data=digitz" in message
    assert message.endswith("known: " + ", ".join(DATASETS))
    assert set(DATASETS) == {"digits", "mnist", "fashion_mnist", "cifar10", "cifar100"}


@pytest.mark.parametrize("data", ["no/such/folder", "no_such_file.npz", "~no_such_user_of_nas/photos"])
def test_a_path_that_does_not_exist_is_refused(data):
    assert f"data={data}" in refusal_of(data)


def test_a_file_that_is_neither_folder_nor_npz_is_refused(tmp_path):
    (tmp_path / "images.csv").write_text("1,2\n")
    assert "images.csv is neither" in refusal_of(tmp_path / "images.csv")


# --- .npz


def test_npz_that_is_untested_keeps_all_images_for_training_and_validation(save):
    x, y = np.random.default_rng(0).random((40, 1, 1, 100)), np.arange(40) % 2
    data = load_data(str(save(x=x, y=y, untested=True)), ".", 0.25, 0)
    assert (len(data.train), len(data.validation), len(data.test)) == (30, 10, 0)
    assert data.unseen is data.validation and data.input_shape == (100, 1, 1)
    tested = load_data(str(save(x=x, y=y)), ".", 0.25, 0)
    assert len(tested.test) == 8 and tested.unseen is tested.test


def test_npz_grey(save):
    x = np.random.default_rng(0).integers(0, 256, (20, 5, 7))
    raw = read_npz(save(x=x, y=np.arange(20) % 2))
    assert raw.x.dtype == np.uint8
    assert np.array_equal(raw.x, x[:, None])
    assert raw.classes == ("0", "1")


def test_npz_colour_becomes_channels_first(save):
    x = np.random.default_rng(0).integers(0, 256, (20, 5, 7, 3)).astype(np.uint8)
    raw = read_npz(save(x=x, y=np.arange(20) % 2))
    assert raw.x.shape == (20, 3, 5, 7)
    assert np.array_equal(raw.x[4, 2], x[4, :, :, 2])
    assert load(save(x=x, y=np.arange(20) % 2)).input_shape == (3, 5, 7)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f8"])
def test_npz_floats_become_float32_and_keep_their_values(save, dtype):
    x = np.linspace(-1, 1, 20 * 16).reshape(20, 4, 4).astype(dtype)
    raw = read_npz(save(x=x, y=np.arange(20) % 2))
    assert raw.x.dtype == np.float32
    assert np.array_equal(raw.x[:, 0], x.astype(np.float32))


@pytest.mark.parametrize("extreme", [-1, 256, 60_000])
def test_npz_whole_numbers_beyond_a_byte_do_not_wrap_around(save, extreme):
    x = np.full((20, 4, 4), 3)
    x[0, 0, 0] = extreme
    raw = read_npz(save(x=x, y=np.arange(20) % 2))
    assert raw.x.dtype == np.float32
    assert raw.x[0, 0, 0, 0] == extreme


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["cat", "dog", "ant", "dog"], ("ant", "cat", "dog")),
        ([30, -2, 10, -2], ("-2", "10", "30")),
        ([0.5, 2.0, 0.5, 1.0], ("0.5", "1.0", "2.0")),
        ([True, False, True, False], ("False", "True")),
    ],
)
def test_npz_labels_may_be_words_or_any_numbers(save, labels, classes):
    y = np.array(labels * 10)
    raw = read_npz(save(x=np.zeros((40, 4, 4)), y=y))
    assert raw.classes == classes
    assert [raw.classes[label] for label in raw.y] == [str(label) for label in y.tolist()]


def zeros(*shape):
    return np.zeros(shape, dtype=np.float32)


def with_value(value, dtype=np.float64):
    x = np.zeros((8, 4, 4), dtype=dtype)
    x[3, 2, 1] = value
    return x


HALVES = np.arange(8) % 2


@pytest.mark.parametrize(
    ("arrays", "fragment"),
    [
        ({"y": HALVES}, "x"),
        ({"x": zeros(8, 4, 4)}, "y"),
        ({"images": zeros(8, 4, 4), "labels": HALVES}, "x and y"),
        ({"x": zeros(8, 4), "y": HALVES}, "(8, 4)"),
        ({"x": zeros(8, 4, 4, 1, 1), "y": HALVES}, "(N, H, W)"),
        ({"x": zeros(8, 3, 224, 224)[:, :, :2, :100], "y": HALVES}, "(8, 3, 2, 100)"),
        ({"x": zeros(0, 4, 4), "y": zeros(0)}, "(0, 4, 4)"),
        ({"x": np.float32(3), "y": HALVES}, "()"),
        ({"x": zeros(8, 4, 4), "y": HALVES[:7]}, "(7,)"),
        ({"x": zeros(8, 4, 4), "y": np.eye(8)}, "(8, 8)"),
        ({"x": with_value(np.nan), "y": HALVES}, "NaN"),
        ({"x": with_value(np.inf), "y": HALVES}, "infinite"),
        ({"x": zeros(8, 4, 4), "y": np.array([0, 1, np.nan, 0, 1, 0, 1, 0])}, "NaN"),
        ({"x": np.full((8, 4, 4), None), "y": HALVES}, "cannot be read"),
        ({"x": zeros(8, 4, 4), "y": np.array([None] * 8)}, "cannot be read"),
        ({"x": zeros(8, 4, 4) + 1j, "y": HALVES}, "complex"),
        ({"x": np.full((8, 4, 4), "a"), "y": HALVES}, "<U1"),
        ({"x": zeros(8, 4, 4), "y": np.zeros(8)}, "only one class"),
        ({"x": zeros(8, 4, 4), "y": np.array([0] * 7 + [5])}, "class '5' has too few images"),
        ({"x": zeros(8, 4, 4), "y": np.arange(8)}, "too few images"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_npz_is_refused_by_name(save, arrays, fragment):
    file = save(**arrays)
    message = refusal_of(file)
    assert f"data={file}" in message
    assert fragment in message


def test_values_that_float32_cannot_hold_are_refused(save):
    file = save(x=with_value(1e300), y=HALVES)
    assert f"data={file}" in refusal_of(file)


def test_a_truncated_npz_is_refused(save):
    file = save(x=zeros(50, 8, 8), y=np.arange(50) % 2)
    content = file.read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:length])
        assert f"data={file}: cannot be read" in refusal_of(file)


def test_an_npz_with_damaged_bytes_is_read_or_refused(tmp_path):
    file = tmp_path / "damaged.npz"
    rng = np.random.default_rng(0)
    np.savez_compressed(file, x=rng.integers(0, 255, (50, 8, 8)), y=np.arange(50) % 2)
    content = np.frombuffer(file.read_bytes(), dtype=np.uint8)
    refused = 0
    for _ in range(40):
        damaged = content.copy()
        damaged[rng.integers(0, len(content), 3)] ^= 0x55
        file.write_bytes(damaged.tobytes())
        try:
            read_npz(file)
        except ValueError as error:
            assert f"data={file}" in str(error)
            refused += 1
    assert refused > 20


def test_text_called_npz_is_refused(tmp_path):
    file = tmp_path / "text.npz"
    file.write_text("these are no arrays\n")
    assert f"data={file}: cannot be read" in refusal_of(file)


def test_a_single_array_called_npz_is_refused(tmp_path):
    with (tmp_path / "array.npz").open("wb") as file:
        np.save(file, zeros(8, 4, 4))
    assert "array.npz" in refusal_of(tmp_path / "array.npz")


# --- torchvision


@needs_data
@pytest.mark.parametrize(
    ("name", "shape", "sizes"),
    [("fashion_mnist", (1, 28, 28), [48_000, 12_000, 10_000]), ("cifar10", (3, 32, 32), [40_000, 10_000, 10_000])],
)
def test_torchvision_data_sets(name, shape, sizes):
    data = load(name, root=Path(DATA_ROOT) / "images")
    assert data.input_shape == shape
    assert [len(part.y) for part in parts(data)] == sizes
    for part in parts(data):
        assert part.x.dtype == torch.uint8
        assert (torch.bincount(part.y) == len(part.y) // 10).all()
    assert len(set(data.classes)) == 10
    assert data.augmentation.flip


@needs_data
def test_cifar10_images_have_their_labels_and_orientation():
    from torchvision.datasets import CIFAR10

    root = Path(DATA_ROOT) / "images"
    official, test = CIFAR10(str(root), train=False), load("cifar10", root=root).test
    for i in (0, 123, 9999):
        picture, label = official[i]
        assert np.array_equal(test.x[i].permute(1, 2, 0).numpy(), np.asarray(picture))
        assert int(test.y[i]) == label


@pytest.fixture
def no_network(monkeypatch):
    tried = []

    def refuse(request, *_, **__):
        tried.append(getattr(request, "full_url", request))
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return tried


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("mnist", ["MNIST/raw/train-images-idx3-ubyte", "MNIST/raw/t10k-labels-idx1-ubyte"]),
        ("fashion_mnist", ["FashionMNIST/raw/train-images-idx3-ubyte", "FashionMNIST/raw/t10k-labels-idx1-ubyte"]),
        ("cifar10", [f"cifar-10-batches-py/{file}" for file in ("data_batch_1", "test_batch", "batches.meta")]),
        ("cifar100", [f"cifar-100-python/{file}" for file in ("train", "test", "meta")]),
    ],
)
def test_missing_files_are_named_where_they_cannot_be_downloaded(tmp_path, no_network, name, files):
    message = refusal_of(name, root=tmp_path)
    assert f"data_root={tmp_path}" in message
    assert [file for file in files if file not in message] == []
    assert 1 <= len(no_network) <= 4


@pytest.mark.parametrize("root", ["~no_such_user_of_nas/images", "file.txt"])
def test_an_impossible_data_root_is_refused(tmp_path, no_network, monkeypatch, root):
    monkeypatch.chdir(tmp_path)
    Path("file.txt").write_text("no folder")
    assert "data_root=" in refusal_of("mnist", root=root)


@pytest.mark.parametrize("content", [b"", bytes(100), b"no images"], ids=["empty", "zeros", "text"])
def test_damaged_torchvision_files_are_refused_by_name(tmp_path, no_network, content):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (raw / f"{part}-{kind}-ubyte").write_bytes(content)
    message = refusal_of("fashion_mnist", root=tmp_path)
    assert f"data_root={tmp_path}" in message
    assert "train-images-idx3-ubyte" in message
