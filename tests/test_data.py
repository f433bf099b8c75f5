"""Data sets: files good and bad, subsets, normalisation, teachers, whitening."""

import gzip
import struct
import sys

import jax
import numpy as np
import pytest

from gdstab import data

KEY = jax.random.key(3)
TYPES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


def idx_bytes(array):
    code = TYPES[array.dtype.str[1:]]
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_pair(folder, images, labels, *, prefix="train", ending="", mark="-"):
    folder.mkdir(parents=True, exist_ok=True)
    for stem, array in ((f"images{mark}idx3-ubyte", images), (f"labels{mark}idx1-ubyte", labels)):
        content = idx_bytes(array)
        (folder / f"{prefix}-{stem}{ending}").write_bytes(gzip.compress(content, mtime=0) if ending else content)


IMAGES = np.random.default_rng(0).integers(0, 256, (20, 4, 4)).astype("u1")
LABELS = (np.arange(20) % 10).astype("u1")
SMALL = data.Dataset(IMAGES / 255, LABELS.astype(int))


# Files


@pytest.mark.parametrize("code", TYPES)
@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_give_back_what_was_written(tmp_path, code, packed):
    array = np.random.default_rng(1).integers(0, 100, (3, 2, 5)).astype(code)
    path = tmp_path / "array"  # no ending: packed files are known by their content
    path.write_bytes(gzip.compress(idx_bytes(array), mtime=0) if packed else idx_bytes(array))
    found = data.read_idx(path)
    assert found.dtype == np.dtype(code)
    np.testing.assert_array_equal(found, array)


WHOLE = idx_bytes(IMAGES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (WHOLE[:-1], "is cut short"),
        (WHOLE + b"\0", "holds more"),
        (WHOLE[:9], "header of 16 bytes"),
        (b"", "empty file"),
        (b"\0\0\x07\x03" + WHOLE[4:], "expected an IDX file"),
        (b"\x89PNG" + WHOLE[4:], "89 50 4e 47"),
        (struct.pack(">BBBB3I", 0, 0, 8, 3, *[2**32 - 1] * 3), "is cut short"),
        (gzip.compress(WHOLE, mtime=0)[:-20], "damaged"),
        (gzip.compress(WHOLE, mtime=0)[:40] + b"\xff" * 40, "damaged"),
    ],
)
def test_damaged_idx_files_are_named(tmp_path, content, message):
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        data.read_idx(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(("ending", "mark"), [("", "-"), (".gz", "-"), ("", "."), (".gz", ".")])
def test_images_come_from_a_folder_or_from_the_environment(tmp_path, monkeypatch, ending, mark):
    write_pair(tmp_path / "mnist", IMAGES, LABELS, ending=ending, mark=mark)
    write_pair(tmp_path / "fashion-mnist", IMAGES[:10], LABELS[:10], prefix="t10k", ending=ending, mark=mark)
    monkeypatch.setenv("GDSTAB_DATA", str(tmp_path))
    train, test = data.mnist(), data.fashion_mnist(part="test")
    np.testing.assert_array_equal(train.inputs, IMAGES / 255)
    np.testing.assert_array_equal(train.labels, LABELS)
    assert (train.inputs.dtype, train.labels.dtype, len(train), len(test)) == (np.float64, np.int32, 20, 10)
    assert (train.name, test.name, train.classes) == ("mnist", "fashion-mnist", 10)
    direct = data.mnist(tmp_path / "mnist", dtype="float32")
    np.testing.assert_array_equal(direct.inputs, (IMAGES / 255).astype(np.float32))


def test_missing_files_say_where_they_belong(tmp_path, monkeypatch):
    monkeypatch.delenv("GDSTAB_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="set GDSTAB_DATA"):
        data.mnist()
    with pytest.raises(FileNotFoundError, match="no folder"):
        data.mnist(tmp_path / "nowhere")
    write_pair(tmp_path, IMAGES, LABELS)
    with pytest.raises(FileNotFoundError, match=r"t10k-images-idx3-ubyte\.gz.*nothing is downloaded"):
        data.mnist(tmp_path, "test")
    with pytest.raises(ValueError, match="'train' or 'test'"):
        data.mnist(tmp_path, "validation")


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES[:5], LABELS, "belong together"),
        (IMAGES, LABELS + np.uint8(1), "from 1 to 10"),
        (LABELS, IMAGES, "3 axes"),
        (IMAGES.astype("i2"), LABELS, "unsigned bytes"),
        (IMAGES[:0], LABELS[:0], "at least one image"),
    ],
)
def test_files_that_do_not_fit(tmp_path, images, labels, message):
    write_pair(tmp_path, images, labels)
    with pytest.raises(ValueError, match=message):
        data.mnist(tmp_path)


# Digits, subsets, normalisation


def test_the_digits_are_there():
    digits = data.digits(dtype="float32")
    assert (digits.inputs.shape, digits.inputs.dtype) == ((1797, 8, 8), np.float32)
    assert (digits.inputs.min(), digits.inputs.max()) == (0, 1)
    assert np.bincount(digits.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    np.testing.assert_array_equal(digits.one_hot.argmax(1), digits.labels)
    np.testing.assert_array_equal(digits.one_hot.sum(1), 1)


def test_without_scikit_learn_the_message_helps(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ModuleNotFoundError, match="pip install scikit-learn"):
        data.digits()


def test_pixels_are_normalised_over_the_whole_set():
    found = data.normalised(SMALL)
    mean, deviation = data.pixel_statistics(SMALL)
    np.testing.assert_allclose([found.inputs.mean(), found.inputs.std()], [0, 1], atol=1e-14)
    np.testing.assert_allclose(found.inputs, (IMAGES / 255 - mean) / deviation, rtol=1e-13)
    part = data.normalised(data.subset(SMALL, 7), (mean, deviation))
    np.testing.assert_array_equal(part.inputs, data.subset(found, 7).inputs)
    with pytest.raises(ValueError, match="pixels that differ"):
        data.normalised(data.Dataset(np.ones((2, 3, 3)), np.array([0, 1])))


def test_balanced_subsets_have_equal_classes():
    digits = data.digits()
    for num in (10, 103, 999, 1740):
        counts = np.bincount(data.subset(digits, num).labels, minlength=10)
        assert counts.sum() == num
        assert counts.max() - counts.min() <= 1
    fewer, more = (data.subset(digits, num, seed=5) for num in (33, 57))
    assert {image.tobytes() for image in fewer.inputs} <= {image.tobytes() for image in more.inputs}
    np.testing.assert_array_equal(more.inputs, data.subset(digits, 57, seed=5).inputs)
    assert not np.array_equal(more.inputs, data.subset(digits, 57, seed=6).inputs)
    extra = [np.flatnonzero(np.bincount(data.subset(digits, 11, seed).labels) == 2).item() for seed in range(40)]
    assert len(set(extra)) > 5


def test_split_covers_everything_once():
    indexed = data.Dataset(np.arange(20.0).reshape(20, 1, 1), LABELS.astype(int))
    for balanced in (True, False):
        chosen, rest = data.split(indexed, 13, seed=2, balanced=balanced)
        assert (len(chosen), len(rest)) == (13, 7)
        assert sorted([*chosen.inputs.ravel(), *rest.inputs.ravel()]) == list(range(20))
        assert (np.diff(chosen.inputs.ravel()) > 0).all()
    often = sum(np.isin(np.arange(20), data.subset(indexed, 5, seed, balanced=False).inputs) for seed in range(800))
    assert np.abs(often - 200).max() < 5 * np.sqrt(800 * 0.25 * 0.75)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: data.subset(SMALL, 21), "at most 20"),
        (lambda: data.subset(SMALL, 0), "at least 1"),
        (lambda: data.subset(SMALL, 5, seed=-1), "seed"),
        (lambda: data.split(SMALL, 20), "some are left"),
        (lambda: data.subset(data.Dataset(IMAGES / 255, np.minimum(LABELS, 3).astype(int)), 9), "balanced=False"),
        (lambda: data.Dataset(IMAGES / 255, LABELS / 1), "integer labels"),
    ],
)
def test_bad_subsets(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Whitening


@pytest.mark.parametrize("centre", [False, True])
def test_whitened_inputs_have_the_identity_as_covariance(centre, rng):
    """To rounding, although the inputs are conditioned like 1e6; and the map says how they were made."""
    raw = rng.normal(size=(50, 5)) * np.logspace(0, 6, 5) @ np.linalg.qr(rng.normal(size=(5, 5)))[0] + 1.0
    white, matrix, mean = data.whiten(raw, centre=centre)
    np.testing.assert_allclose(white.T @ white / 50, np.eye(5), atol=1e-13)
    np.testing.assert_allclose((raw - mean) @ matrix, white, atol=1e-8)
    np.testing.assert_allclose(matrix, matrix.T, rtol=1e-8)
    np.testing.assert_array_equal(np.abs(mean) > 0, [centre] * 5)
    white, matrix, _ = data.whiten(raw, components=3)
    np.testing.assert_allclose(white.T @ white / 50, np.eye(3), atol=1e-13)
    np.testing.assert_allclose(raw @ matrix, white, atol=1e-8)
    assert data.whiten(raw.astype("float32")).inputs.dtype == np.float32


def test_zca_is_the_nearest_whitening(rng):
    raw = rng.normal(size=(30, 4)) @ rng.normal(size=(4, 4))
    white = data.whiten(raw).inputs
    for _ in range(5):
        turned = white @ np.linalg.qr(rng.normal(size=(4, 4)))[0]
        assert np.linalg.norm(raw - white) < np.linalg.norm(raw - turned)


def test_missing_directions_are_an_error():
    """Three pixels of the digits are always black: 61 directions are left."""
    inputs = data.digits().inputs
    with pytest.raises(ValueError, match="components=61"):
        data.whiten(inputs)
    white = data.whiten(inputs, components=61).inputs
    np.testing.assert_allclose(white.T @ white / 1797, np.eye(61), atol=1e-12)
    for bad, message in ((np.ones((3, 4)), "rank 1"), (np.ones(4), "one row"), (np.full((3, 2), np.nan), "finite")):
        with pytest.raises(ValueError, match=message):
            data.whiten(bad)


# Teachers


@pytest.mark.slow
def test_a_linear_teacher_is_found_again_by_least_squares():
    found = data.linear_teacher(KEY, 60, 6, 4, rank=2, dtype="float64")
    solution = np.linalg.lstsq(found.inputs, found.targets)[0].T
    np.testing.assert_allclose(solution, found.teacher[0], atol=1e-13)
    assert np.linalg.matrix_rank(found.teacher[0]) == 2
    noisy = data.linear_teacher(KEY, 60, 6, 4, rank=2, noise=0.5)
    np.testing.assert_array_equal(noisy.inputs, found.inputs)
    misfit = noisy.targets - found.targets
    assert abs(misfit.std() - 0.5) < 4 * 0.5 / np.sqrt(2 * misfit.size)


def test_section_5_of_paper_d_has_its_data():
    found = data.linear_teacher(KEY, 40, 5, noise=0.1, whitened=True).unit_correlation()
    np.testing.assert_allclose(found.inputs.T @ found.inputs / 40, np.eye(5), atol=1e-13)
    np.testing.assert_allclose(np.linalg.norm(found.correlation), 1.0, rtol=1e-13)
    exact = data.linear_teacher(KEY, 40, 5, whitened=True).unit_correlation()
    np.testing.assert_allclose(exact.correlation, exact.teacher[0], atol=1e-13)


def test_a_relu_teacher_is_a_relu_network():
    found = data.relu_teacher(KEY, 30, 4, neurons=3, outputs=2, dtype="float32")
    first, last = found.teacher
    hidden = np.array([[max(float(row @ x), 0.0) for row in first] for x in found.inputs])
    np.testing.assert_allclose(found.targets, hidden @ last.T, rtol=1e-4, atol=1e-6)
    assert (first.shape, last.shape, found.targets.dtype) == ((3, 4), (2, 3), np.float32)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: data.linear_teacher(KEY, 5, 3, rank=2), "at most 1"),
        (lambda: data.linear_teacher(KEY, 5, 3, noise=-1.0), "at least 0"),
        (lambda: data.linear_teacher(KEY, 2, 3, whitened=True), "more samples"),
        (lambda: data.relu_teacher(KEY, 5, 3, neurons=0), "neurons"),
        (lambda: data.Regression(np.ones((2, 1)), np.zeros((2, 1)), ()).unit_correlation(), "correlation of zero"),
    ],
)
def test_bad_teachers(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("labels", [[0.0, np.nan], ["a", "b"], [0.0, 1.0]])
def test_labels_of_another_kind_are_refused(labels):
    with pytest.raises(ValueError, match="expected integer labels"):
        data.Dataset(np.ones((2, 1)), np.array(labels))


def test_statistics_are_checked():
    given = data.Dataset(np.array([[0.5], [0.25]]), np.array([0, 1]))
    np.testing.assert_allclose(data.normalised(given, (0.5, 0.25)).inputs, [[0.0], [-1.0]])
    with pytest.raises(ValueError, match="standard deviation"):
        data.normalised(given, (0.0, 0.0))
