import pytest

from analysis import bench_driver
from analysis.bench_driver import Settings, check, row
from analysis.driver_contestants import Timeline, optuna_loop


def test_figures_of_a_run_whose_trials_take_longer_and_longer():
    # Two trials a window, of 1, 2, 3 seconds each, half of it spent proposing; set-up before the first proposal.
    line = Timeline(10.0, [11.0, 12.0, 14.0, 16.0, 19.0, 22.0], [0.5, 1.0, 2.0, 3.0, 4.5, 6.0], [1.0] * 5 + [7.0], 4.0)
    found = row("it", line, window=2)
    assert found["trials"] == 6 and found["rss_mb_end"] == 7.0 and found["finish_s"] == 4.0
    assert found["trial_s"] == 2.0 and found["median_trial_s"] == 2.0 and found["median_without_proposing_s"] == 1.0
    assert found["last_over_second"] == found["last_over_second_without_proposing"] == 1.5
    assert found["rss_mb_1000"] is None


def test_the_plain_loop_notes_every_trial():
    line = optuna_loop("mobile", 12)
    assert len(line.ended_s) == len(line.rss_mb) == 12
    assert line.begun_s < line.ended_s[0] and line.ended_s == sorted(line.ended_s)
    assert 0 < line.proposing_s[0] < line.proposing_s[-1] <= line.ended_s[-1] - line.begun_s


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"runs": ("hyperopt",)}, "runs: 'hyperopt' is unknown; known: optuna, ray, ours"),
        ({"per_call": (0,)}, "per_call=0 is not allowed; allowed: 1 to 10,000"),
        ({"trials": 999}, "trials=999 is not allowed; allowed: 1000 or more, two windows"),
        ({"stock_trials": 10}, "stock_trials=10 is not allowed; allowed: 1000 or more, two windows"),
        ({"window": 0}, "window=0 is not allowed; allowed: 1 or more"),
        ({"space": "tiny"}, "space=tiny is too small for trials=10000"),
        ({"sampler": "best"}, "sampler=best is unknown"),
        ({"out": "driver.txt"}, "out=driver.txt is not allowed; allowed: a new file that ends in .csv"),
    ],
)
def test_what_cannot_be_followed_is_refused(tmp_path, given, message):
    with pytest.raises(ValueError) as refused:
        check(Settings(**{"out": str(tmp_path / "driver.csv"), **given}))
    assert str(refused.value).startswith(message) and not list(tmp_path.iterdir())


def test_a_refusal_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys):
    (tmp_path / "driver.csv").touch()
    monkeypatch.setattr("sys.argv", ["bench_driver", f"out={tmp_path / 'driver.csv'}"])
    assert bench_driver.main() == 2
    error = capsys.readouterr().err
    assert error.startswith("analysis.bench_driver: out=") and error.count("\n") == 1
