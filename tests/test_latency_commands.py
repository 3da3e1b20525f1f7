"""`python -m nas.latency`: what its commands print and write, what a search makes of it, what they refuse."""

import json

import pytest

import nas
from nas import search
from nas.command_line import make_config, settings_from_words
from nas.config_fields import leaves
from nas.cores import cores
from nas.latency.__main__ import main
from nas.latency.backends import LATENCY_BACKENDS
from nas.latency.conditions import conditions_from_dict
from nas.latency.predictor import load_predictor
from nas.latency.table import NETWORK, look_up, read_table
from nas.networks.merging import merge_plan
from nas.results import Run
from tests.measuring import Scripted, instead_of_a_clock
from tests.searching import events_of, quick_latency

QUICK = ["latency.tolerance=1", "latency.limit_s=0.2"]
FEW = [*QUICK, "space=tiny", "networks=5", "held_out=5"]
SEARCH = ["budget=2", "train.epochs=1", "trials.executor=inline"]


@pytest.fixture
def at_home(tmp_path, monkeypatch):
    """A working directory and a lane of the test's own."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with quick_latency(folder):
        yield folder


def printed(words, capsys):
    """The lines that a command prints that succeeds."""
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out.splitlines()


def next_words(lines):
    """The words of the search that is proposed next."""
    assert lines[-1].startswith("Next: python -m nas.search ")
    return lines[-1].split()[4:]


def settings_of(words):
    return {key: value for key, (_, value) in leaves(make_config(settings_from_words(words))).items()}


# --- measure


def cells(lines):
    rows = ([cell.strip() for cell in line.strip("│┃").split("│")] for line in lines if line.startswith("│"))
    return [row for row in rows if row[0]]


def test_measure_prints_a_row_for_each_form_and_runtime(at_home, capsys):
    words = ["measure", "arch=tiny", "seed=3", "input=3x32x32", "classes=4", "latency.batch_size=8", *QUICK]
    lines = printed([*words, "backends=[torch,onnxruntime]"], capsys)
    assert lines[0].endswith("1 threads, batch of 8, 3x32x32")
    rows = cells(lines)
    forms = ["train", "folded", "fused"]
    assert [row[:2] for row in rows] == [[name, form] for name in ("torch", "onnxruntime") for form in forms]
    for row in rows:
        low, _, high = row[3].split()
        assert 0 <= float(low) <= float(row[2]) <= float(high) and float(row[2]) > 0  # few rounds: low may be 0
    for i in (0, 3):
        fused = float(rows[i + 2][2])
        for row in rows[i : i + 3]:
            assert float(row[4]) == pytest.approx(float(row[2]) / fused, rel=0.05)
    assert not any(at_home.iterdir())


@pytest.mark.parametrize("source", ["zoo", "file"])
def test_measure_takes_a_network_of_the_zoo_or_a_file(at_home, capsys, source):
    (at_home / "own.json").write_text(json.dumps(nas.load_space("tiny").sample(0).to_dict()))
    arch = {"zoo": "lenet5", "file": "own.json"}[source]
    rows = cells(printed(["measure", f"arch={arch}", "input=1x28x28", "backends=[torch]", *QUICK], capsys))
    assert [row[1] for row in rows] == ["train", "folded", "fused"]


def test_measure_says_why_a_runtime_cannot_run_a_network_and_goes_on(at_home, capsys):
    (at_home / "own.csv").write_text("layer,latency_ms\nnetwork,1\n")
    words = ["measure", "arch=tiny", "backends=[table,torch]", "latency.table=own.csv", *QUICK]
    lines = printed(words, capsys)
    assert [row[2:] for row in cells(lines)[:3]] == [["-", "-", "-", "cannot run it"]] * 3
    assert all(float(row[2]) > 0 for row in cells(lines)[3:])
    assert any(line.startswith("latency.table has no row 'conv 1-8") for line in lines)


# --- calibrate


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """A calibration without mergers, of batches of two: its file, its lines."""
    folder = tmp_path_factory.mktemp("calibrated")
    words = ["calibrate", *FEW, "merge=none", "latency.batch_size=2", f"out={folder / 'new' / 'tiny.json'}"]
    with quick_latency(folder), pytest.MonkeyPatch.context() as patch:
        said = []
        patch.setattr("builtins.print", lambda *texts, **how: said.extend(" ".join(map(str, texts)).splitlines()))
        assert main(words) == 0
    return folder / "new" / "tiny.json", said


def test_calibrate_prints_how_good_it_is_and_where_it_is(calibrated):
    file, lines = calibrated
    assert lines[1].split() == ["median", "error", "90", "%", "Spearman", "Kendall"]
    for line, name in zip(lines[2:4], ["predicted, of networks not seen", "measured again (the ceiling)"], strict=True):
        assert line.startswith(name)
        median, p90, *agreement = line.removeprefix(name).split()
        assert median.endswith("%") and 0 <= float(median[:-1]) <= float(p90[:-1])
        assert all(-1 <= float(each) <= 1 for each in agreement) and len(agreement) == 2
    assert lines[-2] == f"Calibration: {file}"
    assert [each.name for each in file.parent.iterdir()] == ["tiny.json"]


def test_a_calibration_holds_for_what_was_measured(calibrated):
    words = json.loads(calibrated[0].read_text())
    assert len(words["regression"]["latency_ms"]) == 7
    where = conditions_from_dict(words["conditions"])
    assert (where.merge, where.batch_size, where.input_shape, where.num_classes) == ("none", 2, (1, 8, 8), 10)
    archs = [nas.load_space("tiny").sample(seed) for seed in range(20)]
    assert (load_predictor(calibrated[0], where).predict(archs).median_ms > 0).all()


def test_the_search_that_is_proposed_runs_with_the_calibration(calibrated, at_home):
    file, lines = calibrated
    words = next_words(lines)
    settings = settings_of(words)
    assert (settings["space"], settings["merge"], settings["latency.batch_size"]) == ("tiny", "none", 2)
    assert settings["latency.calibration"] == str(file)
    assert search.main([*words, *SEARCH, "constraints.latency_ms=1000", "run=next"]) == 0
    assert Run(at_home / "runs" / "next").trials["state"].tolist() == ["completed"] * 2


@pytest.mark.parametrize(
    ("word", "part"),
    [("merge=macs", "merge none, here macs"), ("latency.batch_size=1", "batch_size 2, here 1")],
)
def test_a_search_that_differs_is_refused_and_leaves_nothing(calibrated, at_home, capsys, word, part):
    file, lines = calibrated
    assert search.main([*next_words(lines), *SEARCH, "constraints.latency_ms=1000", word]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"nas.search: latency.calibration={file} was made for {part}\n")
    assert not any(at_home.iterdir())


@pytest.fixture
def scripted():
    """Latencies by the number of weights."""
    with instead_of_a_clock(Scripted(lambda network: 0.5 + 1e-3 * sum(each.numel() for each in network.parameters()))):
        yield


@pytest.mark.parametrize(
    "given",
    [
        ["merge=none", "latency.batch_size=2"],
        ["latency.backend=torch", "latency.memory_format=channels_last"],
        pytest.param([f"latency.threads={cores()}"], marks=pytest.mark.skipif(cores() == 1, reason="one core")),
    ],
    ids=str,
)
def test_what_a_calibration_was_given_is_repeated_to_the_search(scripted, at_home, capsys, given):
    lines = printed(["calibrate", *FEW, "space=reducenet", "seed=3", *given, "out=made.json"], capsys)
    words = next_words(lines)
    usual = ["space=reducenet", "latency.tolerance=1.0", "latency.limit_s=0.2", "latency.calibration=made.json"]
    assert sorted(words) == sorted([*usual, *given])
    assert settings_of(words)["seed"] == 0


def test_by_default_a_calibration_lies_beside_what_runs_remember(scripted, at_home, capsys):
    lines = printed(["calibrate", "networks=5", "held_out=5", "merge=none"], capsys)
    assert lines[-2] == "Calibration: runs/.latency/calibration-mobile.json"
    assert sorted(next_words(lines)) == ["latency.calibration=" + lines[-2].split()[1], "merge=none", "space=mobile"]
    assert [file for file in at_home.rglob("*") if file.is_file()] == [at_home / lines[-2].split()[1]]


# --- layers


def test_a_search_runs_by_the_table_that_layers_writes(scripted, at_home, capsys):
    lines = printed(["layers", *QUICK, "networks=16", "out=tables/own.csv"], capsys)
    table = read_table(at_home / "tables" / "own.csv")
    assert len(table) > 10 and table[NETWORK] == 0.5
    assert f"measuring {len(table) - 1} layers of 16 networks of space tiny" == lines[0]
    assert lines[1] == "Table: tables/own.csv"
    words = next_words(lines)
    assert {"space=tiny", "latency.backend=table", "latency.table=tables/own.csv"} <= set(words)

    latencies = []
    for runs in ("a", "b"):
        assert search.main([*words, *SEARCH, "budget=3", f"runs_dir={runs}", "run=one"]) == 0
        run = Run(at_home / runs / "one")
        assert run.trials["state"].tolist() == ["completed"] * 3
        for event in (event for event in events_of(run) if event["event"] == "proposed"):
            arch = nas.load_architecture(json.dumps(event["architecture"]))
            deployed = nas.build(arch, num_classes=10, input_shape=(1, 8, 8), form="deploy")
            merged = nas.apply_merges(deployed, merge_plan(deployed, "macs"))
            told = run.trials.set_index("trial").loc[event["trial"], "latency_ms"]
            assert told == pytest.approx(look_up(merged, (1, 8, 8), table))
        latencies.append(run.trials.sort_values("trial")["latency_ms"].tolist())
    assert latencies[0] == latencies[1]


# --- bad input

NOT_INSTALLED = next(name for name, each in LATENCY_BACKENDS.items() if not each.installed)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["measur", "arch=tiny"], ["'measur' is not a command; allowed: measure, calibrate, layers"]),
        (["measure", "arch=tiny", "batch=3"], ["unknown key 'batch'", "did you mean"]),
        (["calibrate", "budget=3"], ["unknown key 'budget'"]),
        (["calibrate", "space"], ["'space' is not allowed; allowed: key=value"]),
        (["measure"], ["arch is missing; allowed: "]),
        (["measure", "arch=nonsense"], ["architecture 'nonsense'", "mobilenet_v2"]),
        (["measure", "arch=tiny", "input=3x32"], ["input=3x32 is not allowed; allowed: CxHxW"]),
        (["measure", "arch=tiny", "input=3x0x32"], ["input=3x0x32 is not allowed"]),
        (["measure", "arch=tiny", "input=axbxc"], ["input=axbxc is not allowed"]),
        (["measure", "arch=tiny", "input=1x²x3"], ["input=1x²x3 is not allowed"]),
        (["measure", "arch=tiny", "input=1x999x999", "latency.batch_size=100000"], ["batch of 100000 images"]),
        (["measure", "arch=tiny", f"latency.backend={NOT_INSTALLED}"], [f"{NOT_INSTALLED} is not installed"]),
        (["measure", "arch=tiny", "latency.table=nowhere.csv"], ["latency.table=nowhere.csv cannot be read"]),
        (["measure", "arch=tiny", "data=digit"], ["data=digit is neither", "digits"]),
        (["measure", "arch=tiny", "backends=[abacus]"], ["latency.backend=abacus is unknown"]),
        (["measure", "arch=tiny", f"backends=[{NOT_INSTALLED}]"], [f"{NOT_INSTALLED} is not installed: pip install"]),
        (["measure", "arch=tiny", "backends=[table]"], ["latency.backend=table needs latency.table=FILE"]),
        (["calibrate", "networks=4"], ["networks=4 is not allowed; allowed: 5 to"]),
        (["calibrate", "merge=magic"], ["merge=magic is not allowed", "macs"]),
        (["layers", "out="], ["out= is not allowed"]),
        *[
            ([command, "arch=tiny" if command == "measure" else "space=tiny", word], [*parts])
            for command in ("measure", "calibrate", "layers")
            for word, *parts in [
                ("latency.threads=1024", f"latency.threads=1024 is not allowed; allowed: 1 to {cores()}"),
                ("latency.batch_size=0", "latency.batch_size=0 is not allowed; allowed: 1 to"),
                ("latency.tolerance=0", "latency.tolerance=0"),
                ("classes=0", "classes=0 is not allowed"),
            ]
        ],
        *[
            ([command, "space=tiny", word], [*parts])
            for command in ("calibrate", "layers")
            for word, *parts in [
                (f"latency.backend={NOT_INSTALLED}", f"{NOT_INSTALLED} is not installed: pip install", "installed: "),
                ("latency.backend=table", "latency.backend=table needs latency.table=FILE"),
                ("out=.", "out=. cannot be written: it is a folder"),
                ("out=/dev/null/x", "out=/dev/null/x cannot be written"),
                ("out=/proc/x", "out=/proc/x cannot be written"),
                (f"out={'x' * 300}", "xxx cannot be written"),
            ]
        ],
    ],
    ids=" ".join,
)
def test_bad_input_gets_one_line_and_leaves_nothing(at_home, capsys, words, parts):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("nas.latency: ") and err.endswith("\n") and err.count("\n") == 1, err
    for part in parts:
        assert part in err
    assert not any(at_home.iterdir())


@pytest.mark.parametrize("command", ["calibrate", "layers"])
def test_a_space_that_is_none_leaves_no_file(at_home, capsys, command):
    assert main([command, "space=moble", "out=made/here"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "space=moble" in err and "mobile" in err and err.count("\n") == 1
    assert not list(at_home.iterdir())


def test_a_table_that_lacks_a_layer_leaves_the_file_that_was_there(at_home, capsys):
    (at_home / "own.csv").write_text("layer,latency_ms\nnetwork,1\n")
    (at_home / "out.csv").write_text("mine")
    words = ["layers", "latency.backend=table", "latency.table=own.csv", "networks=2", "out=out.csv"]
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("nas.latency: latency.table has no row 'conv 1-8")
    assert (at_home / "out.csv").read_text() == "mine"


def test_ctrl_c_leaves_no_file(at_home, capsys, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("nas.latency.commands.calibrate", interrupted)
    assert main(["calibrate", *FEW, "out=made.json"]) == 130
    assert capsys.readouterr().err == "nas.latency: interrupted\n"
    assert not any(at_home.iterdir())
