"""Whatever is thrown at the loaders, only our own errors come out: see tests/untrusted.py for what is thrown."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.architecture import architecture_from_json
from nas.bounded import parse_json, parse_json_line, parse_yaml
from nas.trial import event_from_dict
from tests.untrusted import READERS, REPOSITORY, refusal

INPUTS = 10_000
MOST_MB = 1024
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_a_spoilt_file_is_read_or_refused_in_one_line(reader, tmp_path_factory, seed):
    refusal(reader, tmp_path_factory.mktemp("fuzz"), seed)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(text=st.text())
def test_any_text_is_parsed_or_refused(text):
    for parse in (parse_yaml, parse_json, parse_json_line, architecture_from_json):
        try:
            parse(text)
        except ValueError as error:
            assert str(error) and "\n" not in str(error)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(words=ANYTHING)
def test_any_words_are_an_event_or_refused(words):
    try:
        event_from_dict(words)
    except ValueError as error:
        assert str(error) and "\n" not in str(error)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(words=ANYTHING)
def test_json_comes_back_as_it_was(words):
    text = json.dumps(words)
    try:
        found = parse_json(text)
    except ValueError:
        assert "NaN" in text or "Infinity" in text or "\\ud" in text or any(len(each) > 40 for each in text.split())
    else:
        assert found == words


# --- many more, and by coverage


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file below a folder."""
    return {str(each): (each.stat().st_size, each.stat().st_mtime_ns) for each in folder.rglob("*") if each.is_file()}


@pytest.mark.slow
def test_ten_thousand_inputs_leave_nothing_behind_and_take_less_than_a_gigabyte(tmp_path):
    for name in ("run", "home", "cwd"):
        (tmp_path / name).mkdir()
    before = listing(REPOSITORY / "search_spaces") | listing(REPOSITORY / "analysis" / "example")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "tests.fuzz_many", str(tmp_path / "run"), str(INPUTS)]
    done = subprocess.run(command, cwd=tmp_path / "cwd", env=environment, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["inputs"] >= INPUTS
    assert told["refused"] > INPUTS / 2 and told["read"] > 0
    assert told["peak_mb"] < MOST_MB, told
    assert not listing(tmp_path / "cwd") and not listing(tmp_path / "home")
    assert before == listing(REPOSITORY / "search_spaces") | listing(REPOSITORY / "analysis" / "example")


@pytest.mark.slow
@pytest.mark.parametrize("parser", ["yaml", "json", "space", "architecture", "event", "words"])
def test_parsers_under_atheris(parser, tmp_path):
    pytest.importorskip("atheris")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    limits = ["-runs=20000", "-max_total_time=60", "-max_len=4096", "-rss_limit_mb=1024", "-timeout=25", "-verbosity=0"]
    command = [sys.executable, "-m", "tests.fuzz_atheris", parser, *limits]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
