"""The code blocks of the documents: all commands have keys that exist, and what is not marked runs."""

import os
import pkgutil
import runpy
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import analysis
import nas
from analysis.settings import from_words
from nas.command_line import make, settings_from_words
from nas.latency.__main__ import COMMANDS
from nas.space_file import load_space
from tests.documents import PAGES, REPOSITORY, Block, blocks_of, module_of, words_of
from tests.searching import quick_latency, small_search

# What cannot run, or is no command; marked in the page by <!-- not run in the tests (PART OF A LINE): REASON -->.
MARKED = {
    "README.md": [
        "installation",
        "what the command prints",
        "installation",
        "downloads, a GPU, an extra",
        "what the command prints",
        "downloads",
        "needs the file of weights",
        "what the command prints",
        "a picture",
    ],
    "CONTRIBUTING.md": ["installation, and the tests themselves"],
    "docs/cluster.md": [*["needs other machines"] * 2, *["needs Kubernetes"] * 2, "needs other machines"],
    "docs/dashboards.md": ["what the command prints", "an extra"],
}
SCHEMAS = {
    "nas.search": "nas.config:SearchConfig",
    "nas.train": "nas.config:TrainCommandConfig",
    "nas.export": "nas.exporting.settings:ExportConfig",
    "nas.describe": "nas.config:DescribeConfig",
    "analysis.runs": "analysis.runs:RunsConfig",
    "analysis.report": "analysis.report.write:ReportConfig",
}
# Commands end with these words, which win over what the page says, so that they take seconds.
QUICK = ["latency.tolerance=1", "latency.limit_s=0.5"]
TRAINING = ["train.epochs=1", "train.warmup_epochs=0", *QUICK]
FEWER = {
    "nas.search": ["budget=2", "trials.executor=inline", *TRAINING],
    "nas.train": TRAINING,
    "nas.latency measure": [*QUICK, "backends=[onnxruntime]"],
    "nas.latency calibrate": [*QUICK, "networks=12", "held_out=5"],
    "nas.latency layers": [*QUICK, "networks=1"],
    "nas.export": ["final.seeds=1"],
}
# Where a line says so, these too.
ALSO = {
    "scheduler=mo_asha": ["train.epochs=9", "budget=3"],
    "resume=true": ["budget=7"],
    "train.epochs=60": ["train.epochs=1"],
    "final.epochs=60": ["final.epochs=1"],
    "constraints.latency_ms=0.1": ["constraints.latency_ms=1000"],
    "constraints.latency_ms=2": ["constraints.latency_ms=1000"],
    "warm_start=[NAME]": ["space=tiny"],
    "zoo_first=true": ["space=tiny"],
    "latency.table=layers_ms.csv": ["latency.table=none"],  # of a device that is elsewhere
}
REPLACED = {
    "latest:12": "latest:0",
    "zoo/resnet50": "zoo/resnet20",
    "budget=8, image_shape=(8, 8)": 'budget=2, epochs=1, executor="inline", image_shape=(8, 8)',
    "budget=8": "budget=2",
}
RUNS = ("NAME", "seed-0", "seed-1", "seed-2", "tpe-0", "tpe-1", "tpe-2")
# These commands run in every suite, the others with the slow tests.
SOON = ("nas.search space=mobile budget=100", "nas.describe arch=my_space.yaml")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A folder with what the pages take for granted: images, a space, some runs."""
    folder = tmp_path_factory.mktemp("workshop")
    rng = np.random.default_rng(0)
    for name in "ab":
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(20):
            Image.fromarray(rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)).save(
                folder / "photos" / name / f"{i}.png"
            )
    Image.fromarray(rng.integers(0, 256, (8, 8)).astype(np.uint8)).save(folder / "photo.jpg")
    np.savez(folder / "mine.npz", x=rng.integers(0, 256, (80, 8, 8)).astype(np.uint8), y=np.arange(80) % 2)
    shutil.copy(REPOSITORY / "search_spaces" / "tiny.yaml", folder / "my_space.yaml")
    small_search(folder / "runs", budget=6, run="NAME", **{"latency.limit_s": 0.5})
    for name in RUNS[1:]:
        shutil.copytree(folder / "runs" / "NAME", folder / "runs" / name)
    return folder


def reduced(line: str) -> list[str]:
    """The words of a command with a small budget."""
    for old, new in REPLACED.items():
        line = line.replace(old, new)
    words = words_of(line)
    command = " ".join(words[: 2 if words[0] == "nas.latency" else 1])
    more = FEWER.get(command, [])
    also = [word for said, them in ALSO.items() if said in line for word in them]
    space = ["space=tiny"] if command == "nas.search" and "space=" not in line and "config=" not in line else []
    return [*words, *more, *space, *also] if "--help" not in line else words


def run_line(line: str, folder: Path) -> None:
    """Runs a line that is typed, in this process where nothing is imported that others should not see."""
    if words_of(line) is None:
        command = [sys.executable, *line.partition("#")[0].split()[1:]]
    else:
        words = reduced(line)
        if "plugins=" not in line:
            assert module_of(words[0]).main(words[1:]) == 0, words
            return
        command = [sys.executable, "-m", *words]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr


def run_block(block: Block, folder: Path, names: dict, soon: bool) -> dict:
    """Runs a block; what a block of Python leaves is known to the next one."""
    if not block.is_run(""):
        return names
    if block.file:
        (folder / block.file).write_text(block.text, encoding="utf-8")
    elif block.language == "yaml":
        whole = "head:" in block.text or "extends:" in block.text
        (folder / "shown.yaml").write_text(block.text if whole else f"extends: tiny\n{block.text}", encoding="utf-8")
        space = load_space(folder / "shown.yaml")
        nas.build(space.sample(0), num_classes=2, input_shape=(3, 32, 32))
    elif block.language == "python":
        text = block.text
        for old, new in REPLACED.items():
            text = text.replace(old, new)
        (folder / "block.py").write_text(text, encoding="utf-8")
        return runpy.run_path(str(folder / "block.py"), init_globals=names)
    for line in filter(block.is_run, block.lines):
        if not soon or " ".join(words_of(line) or []).startswith(SOON):
            run_line(line, folder)
    return names


def run_page(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch, soon: bool) -> None:
    """Runs a page from top to bottom, in one folder."""
    monkeypatch.chdir(folder)
    names: dict = {}
    with quick_latency(folder):
        for block in blocks_of(page):
            try:
                names = run_block(block, folder, names, soon)
            except Exception as error:
                raise AssertionError(f"{block.place}: {block.text}") from error


@pytest.mark.parametrize("page", PAGES)
def test_python_spaces_and_some_commands_of_a_page_run(page, workshop, monkeypatch):
    run_page(page, workshop, monkeypatch, soon=True)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs_from_top_to_bottom(page, workshop, monkeypatch):
    run_page(page, workshop, monkeypatch, soon=False)


def test_what_is_not_run_is_marked_and_no_more_than_is_said_here():
    found = {page: [block.reason for block in blocks_of(page) if block.reason] for page in PAGES}
    assert {page: reasons for page, reasons in found.items() if reasons} == MARKED
    for page in PAGES:
        for block in blocks_of(page):
            for line in filter(block.is_run, block.lines):
                assert line.startswith("python "), f"{block.place}: {line!r} is no command, and not marked"
            for part in block.kept_out:
                assert part in block.text, f"{block.place}: the mark is of {part!r}, which is not there"


@pytest.mark.parametrize("page", PAGES)
def test_the_keys_of_all_commands_exist(page):
    for block in blocks_of(page):
        for words in filter(None, map(words_of, block.lines)):
            if "--help" not in words:
                try:
                    check_keys(*words)
                except (ValueError, KeyError) as error:
                    raise AssertionError(f"{block.place}: python -m {' '.join(words)}") from error


def check_keys(module: str, *words: str) -> None:
    """Raises ValueError for a key that a command does not know, or a value that it cannot have."""
    if module not in SCHEMAS and module != "nas.latency":
        from_words(words, module_of(module).Settings)
        return
    schema, rest = (
        (COMMANDS[words[0]], words[1:]) if module == "nas.latency" else (pkgutil.resolve_name(SCHEMAS[module]), words)
    )
    settings = settings_from_words(rest, schema)
    settings.pop("config", None)  # a file that a run leaves
    make(settings, schema)


def commands_of(package) -> list[str]:
    """The modules of a package that can be started with `python -m`."""
    names = [each.name for each in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    files = {name: Path(find_spec(name).origin).read_text(encoding="utf-8") for name in names}
    started = [name for name, text in files.items() if '\nif __name__ == "__main__":' in text]
    return [name.removesuffix(".__main__") for name in started]


ENTRIES = [name for package in (nas, analysis) for name in commands_of(package)]


def test_the_commands_are_found():
    assert {"nas.search", "nas.latency", "analysis.runs", "analysis.bench_train"} <= set(ENTRIES)


@pytest.mark.parametrize("name", [name for name in ENTRIES if name != "nas.exporting.predict"])
def test_help_shows_an_example(name, capsys, monkeypatch):
    """Every command but predict.py, which is copied beside a model and started from there."""
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    module = module_of(name)
    monkeypatch.setitem(sys.modules, "__main__", module)
    try:
        code = module.main()
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr().out
    assert code == 0
    assert any(line.strip().startswith(f"python -m {name}") for line in said.splitlines()), said
