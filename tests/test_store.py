import json

import pytest

from nas.architecture import architecture_from_dict
from nas.command_line import make_config
from nas.store import RunStore, check_new
from nas.trial import EVENT_VERSION, Ended, Priced, Proposed, Rung, Started, TrialState
from nas.trial import Tested as WasTested
from tests.helpers import reading

SPACE = "head: [{block: classifier}]\n"
CONFIG = make_config({"space": "tiny", "budget": 7, "train.epochs": 2, "objectives": ["error", "macs"], "run": "first"})
ENVIRONMENT = {"torch": "2.0", "threads": 2}
ARCHITECTURE = architecture_from_dict(
    {
        "schema": 1,
        "stem": [{"block": "conv", "out_channels": 8}],
        "stages": [],
        "head": [{"block": "classifier"}],
    }
)
EVENTS = [
    Proposed(0, ARCHITECTURE.to_dict(), ARCHITECTURE.arch_id, ARCHITECTURE.deploy_id, {"name": "Größe", "depth": 2}),
    Priced(0, 100, 2000, reading(1.5, source="remembered", merges=(("a", "b"),))),
    Started(0, 300),
    Rung(0, 2, 0.75, 0.5),
    Ended(0, TrialState.COMPLETED, "", 0.75, 2, 1.5),
]


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


@pytest.fixture
def store(runs):
    return RunStore.create(runs, "first", CONFIG, SPACE, ENVIRONMENT)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def log_of(store):
    return store.path / "events.jsonl"


def append_bytes(store, content):
    with log_of(store).open("ab") as file:
        file.write(content)


def fill(store, events=EVENTS):
    for event in events:
        store.append(event)


# --- create and open


def test_a_new_run_has_its_configuration_environment_and_an_empty_log(store, runs):
    assert store.path == (runs / "first").resolve()
    assert store.name == "first"
    assert names_in(store.path) == ["config.yaml", "environment.json", "events.jsonl", "space.yaml", "weights"]
    assert store.config() == CONFIG
    assert json.loads((store.path / "environment.json").read_text()) == ENVIRONMENT
    assert store.events() == []
    assert store.records() == []
    assert store.end_reason() is None


def test_nothing_but_the_run_and_latest_is_left_in_the_runs_folder(store, runs):
    assert names_in(runs) == ["first", "latest"]


def test_folders_above_are_made(tmp_path):
    store = RunStore.create(tmp_path / "a" / "b", "x", CONFIG, SPACE, {})
    assert store.path.is_dir()


def test_an_existing_name_is_refused_and_its_run_left_alone(store, runs):
    fill(store)
    before = log_of(store).read_bytes()
    with pytest.raises(ValueError, match=r"run=first exists"):
        RunStore.create(runs, "first", make_config({"budget": 99}), SPACE, {})
    assert names_in(runs) == ["first", "latest"]
    assert log_of(store).read_bytes() == before
    assert store.config() == CONFIG


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "/abs", "latest", ".hidden", "-x", "a b", "a\n", "a\\b", "é", "x" * 101, "a\0"],
)
def test_a_bad_name_is_refused_and_nothing_is_made(runs, name):
    with pytest.raises(ValueError, match="run="):
        RunStore.create(runs, name, CONFIG, SPACE, {})
    assert not runs.exists()
    assert names_in(runs.parent) == []


@pytest.mark.parametrize("name", ["x", "2024-01-31_10-00-00", "A.b_c-1", "0", "x" * 100])
def test_a_plain_name_is_allowed(runs, name):
    assert RunStore.create(runs, name, CONFIG, SPACE, {}).name == name


def test_checking_a_name_makes_nothing(runs):
    check_new(runs, "x")
    assert not runs.exists()


def test_a_runs_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(ValueError, match="runs_dir="):
        RunStore.create(tmp_path / "runs", "x", CONFIG, SPACE, {})


def test_an_environment_that_cannot_be_written_leaves_nothing(runs):
    with pytest.raises((TypeError, ValueError)):
        RunStore.create(runs, "first", CONFIG, SPACE, {"torch": object()})
    assert not runs.exists() or names_in(runs) == []


def test_a_configuration_that_cannot_be_written_leaves_nothing(runs, monkeypatch):
    def fail(_):
        raise OSError("no space left on device")

    monkeypatch.setattr("nas.store.config_to_yaml", fail)
    with pytest.raises((OSError, ValueError), match="no space left"):
        RunStore.create(runs, "first", CONFIG, SPACE, {})
    assert not runs.exists() or names_in(runs) == []


def test_a_folder_called_latest_does_not_leave_half_a_run(runs):
    (runs / "latest").mkdir(parents=True)
    try:
        store = RunStore.create(runs, "first", CONFIG, SPACE, ENVIRONMENT)
    except ValueError:
        assert names_in(runs) == ["latest"]
    else:
        assert store.config() == CONFIG
        assert names_in(runs) == ["first", "latest"]


def test_a_run_is_opened_by_its_path(store, runs):
    fill(store)
    again = RunStore.open(str(runs / "first"))
    assert again.path == store.path
    assert again.events() == EVENTS


def test_what_is_not_a_run_cannot_be_opened(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match="is not a run"):
            RunStore.open(path)


def test_the_configuration_can_be_replaced(store):
    store.reopen(make_config({"budget": 50}))
    assert (store.config().budget, store.config().run) == (50, "first")
    assert names_in(store.path) == ["config.yaml", "environment.json", "events.jsonl", "space.yaml", "weights"]


def test_the_end_is_noted(store):
    store.write_end("exhausted")
    assert RunStore.open(store.path).end_reason() == "exhausted"


# --- latest


def test_latest_points_to_the_newest_run(store, runs):
    link = runs / "latest"
    assert link.is_symlink()
    assert link.resolve() == store.path
    second = RunStore.create(runs, "second", CONFIG, SPACE, {})
    assert link.resolve() == second.path
    assert RunStore.open(link).name == "second"
    store.point_latest()
    assert link.resolve() == store.path
    assert names_in(runs) == ["first", "latest", "second"]


def test_latest_survives_a_move_of_the_runs_folder(store, runs):
    moved = runs.rename(runs.with_name("moved"))
    assert RunStore.open(moved / "latest").path == (moved / "first").resolve()


def test_a_latest_that_points_nowhere_is_replaced(runs):
    runs.mkdir()
    (runs / "latest").symlink_to("gone")
    store = RunStore.create(runs, "first", CONFIG, SPACE, {})
    assert (runs / "latest").resolve() == store.path


# --- events


def test_events_come_back_as_they_were_appended(store):
    for number, event in enumerate(EVENTS, 1):
        store.append(event)
        assert store.events() == EVENTS[:number]
    (record,) = store.records()
    assert (record.trial, record.accuracy, record.choices) == (0, 0.75, {"name": "Größe", "depth": 2})
    assert record.architecture == ARCHITECTURE


def test_each_event_is_one_line_with_version_and_time(store):
    fill(store)
    lines = [json.loads(line) for line in log_of(store).read_text().splitlines()]
    assert [line["event"] for line in lines] == ["proposed", "priced", "started", "rung", "ended"]
    assert {line["v"] for line in lines} == {EVENT_VERSION}
    times = [line["time"] for line in lines]
    assert times == sorted(times)
    assert times[0] > 1.7e9


def test_appending_never_rewrites_what_is_there(store):
    fill(store)
    before = log_of(store).read_bytes()
    store.append(WasTested(0, 0.5))
    assert log_of(store).read_bytes().startswith(before)


def test_a_torn_last_line_is_ignored_at_every_byte(store):
    fill(store, EVENTS[:2])
    before = log_of(store).read_bytes()
    store.append(EVENTS[2])
    whole = log_of(store).read_bytes()
    for length in range(len(before), len(whole) - 1):
        log_of(store).write_bytes(whole[:length])
        assert store.events() == EVENTS[:2]


@pytest.mark.parametrize("torn", [b'{"v": 1, "ev', b"\0\0\0\0", b'{"reason": "\xc3', b"{}", b"   "])
def test_a_torn_last_line_is_mended(store, torn):
    fill(store, EVENTS[:2])
    before = log_of(store).read_bytes()
    append_bytes(store, torn)
    assert store.events() == EVENTS[:2]
    store.mend()
    assert log_of(store).read_bytes() == before
    store.append(EVENTS[2])
    assert store.events() == EVENTS[:3]


def test_a_last_event_without_its_line_end_counts_and_is_kept(store):
    fill(store)
    content = log_of(store).read_bytes()
    log_of(store).write_bytes(content[:-1])
    assert store.events() == EVENTS
    store.mend()
    assert log_of(store).read_bytes() == content


def test_mending_a_whole_log_changes_nothing(store):
    store.mend()
    assert log_of(store).read_bytes() == b""
    fill(store)
    before = log_of(store).read_bytes()
    store.mend()
    assert log_of(store).read_bytes() == before


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"not json",
        b"5",
        b"[]",
        b'{"v": 1, "ev',
        b'{"v": 1, "event": "tested", "trial": 0, "test_accuracy": 0.5}',
        b'{"v": 2, "event": "sneezed", "trial": 0}',
        b'{"v": 2, "event": ["tested"], "trial": 0}',
        b'{"v": 2, "event": "tested", "trial": 0}',
        b"\xff\xfe",
    ],
    ids=repr,
)
def test_a_broken_line_in_the_middle_is_an_error_that_names_it(store, broken):
    fill(store, EVENTS[:2])
    append_bytes(store, broken + b"\n")
    fill(store, EVENTS[2:])
    with pytest.raises(ValueError, match=r"events\.jsonl.*line 3"):
        store.events()


def test_a_broken_last_line_that_was_ended_is_an_error_too(store):
    fill(store)
    append_bytes(store, b"garbage\n")
    with pytest.raises(ValueError, match="line 6"):
        store.events()


# --- times and drivers


def test_end_times_count_from_the_first_event(store):
    fill(store)
    lines = [json.loads(line) for line in log_of(store).read_text(encoding="utf-8").splitlines()]
    for second, line in enumerate(lines):
        line["time"] = 100.0 + second
    log_of(store).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert store.end_times() == {0: len(EVENTS) - 1.0}
    for line in lines:
        del line["time"]
    log_of(store).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert store.end_times() == {}


def test_asking_whether_a_run_is_searched_keeps_nobody_out(store):
    assert not store.being_searched()
    assert ".lock" not in names_in(store.path)
    with store.locked():
        assert store.being_searched()
    assert not store.being_searched()
    with store.locked():
        pass
