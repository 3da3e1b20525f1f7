import pytest

from nas.latency.usual import LATEST, note_reading, speeds


def noted(folder, *readings, device="a"):
    for each in readings:
        note_reading(folder, device, each)
    return speeds(folder, device).usual_ms


def test_nothing_is_usual_without_a_reading(tmp_path):
    assert speeds(tmp_path, "a").usual_ms is None
    assert speeds(tmp_path / "missing", "a").usual_ms is None


def test_the_median_of_a_devices_readings_is_usual(tmp_path):
    assert noted(tmp_path, 1.0, 5.0, 2.0) == 2.0
    assert noted(tmp_path, 7.0, device="b") == 7.0
    assert speeds(tmp_path, "a").usual_ms == 2.0


def test_one_reading_that_is_off_does_not_move_it(tmp_path):
    assert noted(tmp_path, *[1.0] * 9, 50.0) == 1.0


def test_readings_of_long_ago_are_forgotten(tmp_path):
    assert noted(tmp_path, *[1.23456789] * 2000, *[2.3456789] * LATEST) == 2.3456789


@pytest.mark.parametrize("foreign", [b"1.5e", b"\n\n", b"nan\n", b"-3\n", b"\xff\xfe\n", b"x" * 5000])
def test_lines_that_are_no_readings_are_passed_over(tmp_path, foreign):
    noted(tmp_path, 1.0, 1.0)
    (file,) = tmp_path.iterdir()
    with file.open("ab") as lines:
        lines.write(foreign)
    assert speeds(tmp_path, "a").usual_ms in (1.0, 1.25, None)
    note_reading(tmp_path, "a", 1.0)  # whatever was torn swallows this line at most
    assert noted(tmp_path, *[1.0] * LATEST) == 1.0
