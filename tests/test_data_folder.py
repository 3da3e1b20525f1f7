"""Folders of pictures: layouts, sizes, colours, files that cannot be read."""

import shutil
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from nas.config import DataConfig
from nas.data import load_data
from nas.data.folder import scan_folder
from tests.helpers import one_line_refusal
from tests.pictures import write_noise


class Read(NamedTuple):
    x: np.ndarray
    y: np.ndarray
    classes: tuple[str, ...]


def read_folder(path, **options):
    """All pictures of a folder, whatever part they are of."""
    found = scan_folder(path, DataConfig(workers=0, **options))
    images = found.part(range(len(found.y)), 0).resident()
    return Read(images.x.numpy(), images.y.numpy(), found.classes)


def load(data, seed=0, val_share=0.2, **options):
    return load_data(str(data), "nowhere", val_share, seed, DataConfig(workers=0, **options))


def refusal_of(data, **more):
    return one_line_refusal(load, data, **more)


def parts(data):
    return data.train, data.validation, data.test


def write_image(file, array, mode=None):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(file) if mode is None else Image.fromarray(array).convert(mode).save(file)


@pytest.fixture
def photos(tmp_path):
    """A folder of two classes with ten images each, all of one grey level: 0 to 9, and 100 to 109."""
    root = tmp_path / "photos"
    for name, level in (("bird", 0), ("ant", 100)):
        for i in range(10):
            write_image(root / name / f"{i}.png", np.full((8, 6), level + i, dtype=np.uint8))
    return root


def test_grey_images_stay_grey(photos):
    raw = read_folder(photos)
    assert raw.x.dtype == np.uint8
    assert raw.x.shape == (20, 1, 8, 6)
    assert raw.classes == ("ant", "bird")
    assert sorted(zip(raw.x[:, 0, 0, 0].tolist(), raw.y.tolist(), strict=True)) == [
        *((i, 1) for i in range(10)),
        *((100 + i, 0) for i in range(10)),
    ]


def test_a_folder_is_split_like_any_data(photos):
    data = load(photos)
    assert [len(part.y) for part in parts(data)] == [12, 4, 4]
    assert data.input_shape == (1, 8, 6)
    for part in parts(data):
        assert np.bincount(part.y).min() == np.bincount(part.y).max()


def test_one_colour_image_makes_all_of_them_colour(photos):
    colour = np.zeros((8, 6, 3), dtype=np.uint8)
    colour[:, :] = (10, 20, 30)
    write_image(photos / "bird" / "colour.png", colour)
    raw = read_folder(photos)
    assert raw.x.shape == (21, 3, 8, 6)
    assert [10, 20, 30] in raw.x[:, :, 0, 0].tolist()
    assert [105, 105, 105] in raw.x[:, :, 0, 0].tolist()


def test_every_image_is_brought_to_the_most_common_size(photos):
    write_image(photos / "ant" / "large.png", np.full((32, 64), 77, dtype=np.uint8))
    write_image(photos / "ant" / "small.png", np.full((2, 2), 66, dtype=np.uint8))
    raw = read_folder(photos)
    assert raw.x.shape == (22, 1, 8, 6)
    means = raw.x.mean(axis=(1, 2, 3))
    assert 77 in means
    assert 66 in means


def test_large_images_become_224_square(tmp_path):
    for name in ("a", "b"):
        write_image(tmp_path / name / "photo.png", np.full((300, 250, 3), 9, dtype=np.uint8))
    assert read_folder(tmp_path).x.shape == (2, 3, 224, 224)


@pytest.mark.parametrize("form", ["L", "RGB", "RGBA", "P", "LA", "1"])
def test_every_kind_of_image_is_read(tmp_path, form):
    for name, level in (("a", 0), ("b", 255)):
        write_image(tmp_path / name / "image.png", np.full((8, 8), level, dtype=np.uint8), form)
    raw = read_folder(tmp_path)
    assert raw.x.shape == (2, 1 if form in ("L", "LA", "1") else 3, 8, 8)
    assert [raw.x[0].max(), raw.x[1].min()] == [0, 255]


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "bmp", "gif", "tif", "webp", "ppm"])
def test_every_common_file_format_is_read(tmp_path, suffix):
    for name in ("a", "b"):
        write_image(tmp_path / name / "deep" / f"image.{suffix}", np.full((8, 8, 3), 200, dtype=np.uint8))
    raw = read_folder(tmp_path)
    assert raw.x.shape == (2, 3, 8, 8)
    assert np.abs(raw.x.astype(int) - 200).max() <= 3


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_images_keep_their_contrast(tmp_path, suffix):
    levels = np.array([[0, 257], [32896, 65535]], dtype=np.uint16).repeat(4, 0).repeat(4, 1)
    for name in ("a", "b"):
        write_image(tmp_path / name / f"image.{suffix}", levels)
    raw = read_folder(tmp_path)
    assert raw.x.shape == (2, 1, 8, 8)
    assert raw.x[0, 0, ::4, ::4].tolist() == [[0, 1], [128, 255]]


def test_big_endian_16_bit_images_are_grey_too(tmp_path):
    levels = np.full((8, 8), 32896, dtype=">u2")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.frombytes("I;16B", (8, 8), levels.tobytes()).save(tmp_path / name / "image.tif")
    raw = read_folder(tmp_path)
    assert raw.x.shape == (2, 1, 8, 8)
    assert (raw.x == 128).all()


def test_images_of_floats_do_not_silently_lose_their_contrast(tmp_path):
    for name in ("a", "b"):
        write_image(tmp_path / name / "image.tif", np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8))
    try:
        raw = read_folder(tmp_path)
    except ValueError as error:
        assert "image.tif" in str(error)
    else:
        assert len(np.unique(raw.x)) > 10


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_an_image_that_cannot_be_read_is_named(photos, share, suffix):
    file = photos / "ant" / f"broken.{suffix}"
    write_image(file, np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8))
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    message = refusal_of(photos)
    assert str(file) in message
    assert "cannot be read" in message


def test_text_called_png_is_named(photos):
    (photos / "bird" / "notes.png").write_text("no pixels here")
    assert str(photos / "bird" / "notes.png") in refusal_of(photos)


def test_other_files_and_hidden_ones_are_passed_over(photos):
    (photos / "readme.txt").write_text("about")
    (photos / "ant" / "notes.txt").write_text("about")
    (photos / "ant" / "._0.png").write_text("metadata")
    (photos / ".cache").mkdir()
    raw = read_folder(photos)
    assert (len(raw.y), raw.classes) == (20, ("ant", "bird"))


def test_a_class_without_images_is_named(photos):
    (photos / "cow").mkdir()
    (photos / "cow" / "notes.txt").write_text("none yet")
    message = refusal_of(photos)
    assert f"data={photos}" in message
    assert "'cow'" in message


def test_a_class_with_one_image_is_named(photos):
    write_image(photos / "cow" / "0.png", np.zeros((8, 6), dtype=np.uint8))
    assert "class 'cow' has too few images" in refusal_of(photos)


def test_a_folder_without_folders_is_refused(tmp_path):
    write_image(tmp_path / "loose.png", np.zeros((8, 8), dtype=np.uint8))
    message = refusal_of(tmp_path)
    assert f"data={tmp_path}" in message
    assert "one folder of images a class" in message


def test_a_folder_with_one_class_is_refused(tmp_path):
    for i in range(5):
        write_image(tmp_path / "lonely" / f"{i}.png", np.zeros((8, 8), dtype=np.uint8))
    message = refusal_of(tmp_path)
    assert f"data={tmp_path}" in message
    assert "only one class" in message
    assert "lonely" in message


# --- train/ val/ test/


@pytest.fixture
def split(tmp_path):
    """train/, val/ and test/ with 6, 3 and 4 pictures of each of two classes."""
    root = tmp_path / "split"
    for number, (part, count) in enumerate((("train", 6), ("val", 3), ("test", 4))):
        write_noise(root / part, {"ant": count, "bird": count}, 8, 6, first=100 * number)
    return root


def images_of(folder):
    """The pixels of all pictures under a folder."""
    return {np.asarray(Image.open(file)).tobytes() for file in folder.rglob("*.png")}


def taken(images):
    return {image.numpy().tobytes() for image in images.x}


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Validation"])
def test_the_parts_of_a_folder_are_taken_as_they_are(split, name):
    (split / "val").rename(split / name)
    data = load(split, seed=5, val_share=0.9)
    for images, folder in zip(parts(data), ("train", name, "test"), strict=True):
        assert taken(images) == images_of(split / folder)
        assert torch.bincount(images.y).tolist() == [len(images) // 2] * 2
    assert data.classes == ("ant", "bird")


def test_without_val_it_is_split_off_train_by_seed(split):
    shutil.rmtree(split / "val")
    first, again, other = (load(split, seed=seed, val_share=0.5) for seed in (1, 1, 2))
    assert [len(part) for part in parts(first)] == [6, 6, 8]
    assert taken(first.test) == images_of(split / "test")
    assert taken(first.train) | taken(first.validation) == images_of(split / "train")
    assert torch.bincount(first.validation.y).tolist() == [3, 3]
    assert taken(first.validation) == taken(again.validation) != taken(other.validation)


def test_without_test_a_fifth_is_split_off_train_whatever_the_seed(split):
    shutil.rmtree(split / "test")
    first, other = load(split, seed=1), load(split, seed=2)
    assert [len(part) for part in parts(first)] == [9, 6, 3]
    assert taken(first.validation) == images_of(split / "val")
    assert taken(first.test) == taken(other.test) < images_of(split / "train")


def test_train_alone_is_split_like_a_folder_of_one_level(split):
    shutil.rmtree(split / "test")
    shutil.rmtree(split / "val")
    alone, one_level = load(split), load(split / "train")
    for part, other in zip(parts(alone), parts(one_level), strict=True):
        assert torch.equal(part.x, other.x)


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_class_that_train_lacks_is_named(split, part):
    write_image(split / part / "cow" / "0.png", np.zeros((8, 6), dtype=np.uint8))
    message = refusal_of(split)
    assert f"data={split}: class 'cow' of {part}/ is not in train/; allowed: ant, bird" in message


@pytest.mark.parametrize("part", ["val", "test"])
def test_val_and_test_may_lack_a_class(split, part):
    shutil.rmtree(split / part / "ant")
    data = load(split)
    images = data.validation if part == "val" else data.test
    assert set(images.y.tolist()) == {1}
    assert data.classes == ("ant", "bird")


def test_a_class_of_train_without_images_is_named(split):
    (split / "train" / "cow").mkdir()
    assert "class 'cow' has no images" in refusal_of(split)


def test_a_part_without_images_is_named(split):
    for file in (split / "val").rglob("*.png"):
        file.unlink()
    assert "val/ has no images" in refusal_of(split)


def test_two_folders_of_one_part_are_refused(split):
    shutil.copytree(split / "val", split / "valid")
    assert "val/, valid/" in refusal_of(split)


def test_parts_without_train_are_refused(split):
    shutil.rmtree(split / "train")
    assert "no train/ beside test/" in refusal_of(split)


def test_pictures_beside_the_parts_are_refused_and_other_folders_passed_over(split):
    (split / "annotations").mkdir()
    (split / "annotations" / "boxes.txt").write_text("1 2 3 4")
    assert len(load(split).train) == 12
    write_image(split / "extra" / "0.png", np.zeros((8, 6), dtype=np.uint8))
    assert "pictures in extra/ beside" in refusal_of(split)


def test_a_class_may_be_called_train(tmp_path):
    write_noise(tmp_path, {"bus": 10, "train": 10}, 8, 6)
    data = load(tmp_path)
    write_noise(tmp_path / "train", {"steam": 5, "electric": 5}, 8, 6, first=100)
    assert load(tmp_path).classes == data.classes == ("bus", "train")
    assert [len(part) for part in parts(data)] == [12, 4, 4]


def test_one_class_is_refused_where_nothing_is_split_either(split):
    for part in ("train", "val", "test"):
        shutil.rmtree(split / part / "ant")
    assert "only one class (bird)" in refusal_of(split)


# --- sizes


def test_image_size_is_what_all_pictures_are_brought_to(photos):
    write_image(photos / "ant" / "large.png", np.full((32, 64), 77, dtype=np.uint8))
    data = load(photos, image_size=5)
    assert data.input_shape == (1, 5, 5)
    assert 77 in torch.cat([part.x for part in parts(data)]).float().mean((1, 2, 3)).tolist()


@pytest.mark.parametrize(
    ("size", "shape"), [((300, 250), (224, 224)), ((300, 20), (224, 20)), ((20, 300), (20, 224)), ((9, 7), (9, 7))]
)
def test_the_most_common_size_counts_up_to_224(tmp_path, size, shape):
    write_noise(tmp_path, {"a": 3, "b": 3}, *size)
    assert scan_folder(tmp_path, DataConfig(workers=0)).shape == (1, *shape)


def test_the_most_common_size_and_colour_are_those_of_all_parts(split):
    write_noise(split / "test", {"ant": 30}, 10, 10, first=500)
    colour = np.zeros((8, 6, 3), dtype=np.uint8)
    write_image(split / "val" / "bird" / "colour.png", colour)
    assert load(split).input_shape == (3, 10, 10)


def test_the_shift_follows_the_size(photos):
    assert load(photos).augmentation.shift == 1
    assert load(photos, image_size=64).augmentation.shift == 8


# --- imbalance


@pytest.mark.parametrize("val_share", [0.1, 0.9])
def test_a_rare_class_is_in_every_part(tmp_path, val_share):
    write_noise(tmp_path, {"common": 60, "rare": 3, "seldom": 7}, 4, 4)
    for seed in range(5):
        data = load(tmp_path, seed=seed, val_share=val_share)
        counts = [torch.bincount(part.y, minlength=3).tolist() for part in parts(data)]
        assert min(min(count) for count in counts) >= 1
        assert np.sum(counts, axis=0).tolist() == [60, 3, 7]
        assert len(taken(data.train) | taken(data.validation) | taken(data.test)) == 70


def test_class_counts_are_of_the_training_images(split):
    write_noise(split / "train", {"bird": 5}, 8, 6, first=900)
    counts = load(split).class_counts
    assert counts == (6, 11)
    assert all(type(count) is int for count in counts)
