"""Modules of a user's own that add data sets and blocks; the example of docs/blocks.md is one of them."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import onnxruntime
import pandas as pd
import pytest
import torch
from torch import nn

from nas import block_fields as fields
from nas.architecture import Architecture
from nas.blocks import BLOCK_SCHEMAS, Block, Classifier
from nas.command_line import make_config, settings_from_words
from nas.config import SearchConfig
from nas.latency import __main__ as latency_command
from nas.latency.commands import _next
from nas.latency.settings import LayersConfig
from nas.layers import deploy_layers
from nas.layers.blocks import BLOCK_LAYERS
from nas.networks import onnx_file
from nas.networks.bricks import conv_norm
from nas.networks.builder import BLOCKS, build
from nas.networks.fusing import fuse
from nas.networks.onnx_file import onnx_bytes
from nas.plugins import import_path, import_plugins
from nas.space_file import load_space
from nas.tune.plan import make_plan
from nas.tune.ray_code import shipped_code
from tests.helpers import randomise, relative_difference, space_of, write_space

REPOSITORY = Path(__file__).parents[1]
PAGE = (REPOSITORY / "docs" / "blocks.md").read_text(encoding="utf-8")
SMALL = ["trials.executor=inline", "latency.tolerance=1", "latency.limit_s=1"]


@pytest.fixture
def example(tmp_path):
    """A folder with the two files of the page."""
    for name, language in (("my_plugin.py", "python"), ("my_space.yaml", "yaml")):
        assert f"`{name}`" in PAGE
        (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
        (tmp_path / name).write_text(found, encoding="utf-8")
    return tmp_path


@pytest.fixture
def forgotten(monkeypatch):
    """What a test imports as a plugin is imported anew by the next one."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if not name.startswith(("nas", "torch")):
            del sys.modules[name]


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`python -m ...` in a folder that is not the repository's."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = [sys.executable, "-m", *words]
    return subprocess.run(done, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)


def words_of_the_page(start: str) -> list[str]:
    """The words of the page's one command that begins so."""
    (line,) = [line.strip() for line in PAGE.splitlines() if line.strip().startswith(f"python -m {start} ")]
    return line.removeprefix("python -m ").split()


@pytest.mark.slow
def test_the_example_of_the_page_is_searched_exported_and_resumed(example):
    words = words_of_the_page("nas.search")
    done = command(example, *words, *SMALL, "run=first")
    assert done.returncode == 0, done.stderr
    run = example / "runs" / "first"
    trials = pd.read_csv(run / "trials.csv")
    assert trials["state"].tolist() == ["completed"] * 4
    assert "ghost" in trials["stage1.block"].tolist()
    for trial in trials.loc[trials["on_front"], "trial"]:
        assert (run / "models" / str(trial) / "model.onnx").exists()
    for words in (
        ["nas.search", "resume=true", "run=first", "budget=5"],
        ["nas.export", "run=first", "out=out"],
        ["nas.describe", "arch=runs/first:0"],
        ["nas.train", "arch=runs/first:0"],
        ["nas.search", "config=runs/first/config.yaml"],
    ):
        done = command(example, *words)  # a run's files are not what decides which code is run
        assert done.returncode == 2
        assert "a file alone imports no code; allowed: plugins=[my_plugin] in the command" in done.stderr
    done = command(example, "nas.search", "resume=true", "run=first", "budget=5", "plugins=[my_plugin]")
    assert done.returncode == 0, done.stderr
    assert len(pd.read_csv(run / "trials.csv")) == 5


def test_the_command_that_is_proposed_next_names_the_plugins():
    line = _next(LayersConfig(plugins=["mine", "my.blocks"]), "latency.table", Path("table.csv"))
    words = shlex.split(line.partition("nas.search ")[2])
    assert make_config(settings_from_words(words, SearchConfig)).plugins == ["mine", "my.blocks"]


@pytest.mark.slow
def test_layers_of_the_example_are_measured(example):
    words = ["plugins=[my_plugin]", "space=my_space.yaml", "data=bars", "networks=2", *SMALL[1:]]
    done = command(example, "nas.latency", "layers", *words, "latency.backend=torch", "latency.limit_s=0.1")
    assert done.returncode == 0, done.stderr
    assert (example / "layers.csv").exists()
    assert "calibrate" in words_of_the_page("nas.latency")  # which takes minutes


@pytest.mark.slow
def test_rays_workers_find_the_plugin(example):
    words = [word for word in words_of_the_page("nas.search") if not word.startswith("budget")]
    done = command(example, *words, "budget=2", "latency.tolerance=1", "run=ray")
    assert done.returncode == 0, done.stderr
    assert pd.read_csv(example / "runs" / "ray" / "trials.csv")["state"].tolist() == ["completed"] * 2


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("not_there_at_all", None, ["module 'not_there_at_all' cannot be imported: ModuleNotFoundError: No module"]),
        ("folder/mine", None, ["plugins: 'folder/mine' is not allowed; allowed: names of modules"]),
        ("mine.py", None, ["module 'mine.py' cannot be imported"]),
        ("", None, ["plugins: '' is not allowed"]),
        (".mine", None, ["plugins: '.mine' is not allowed"]),
        ("plugin_wrong", "1 / 0", ["module 'plugin_wrong' cannot be imported: ZeroDivisionError: division by zero"]),
        ("plugin_torn", "def f(:", ["module 'plugin_torn' cannot be imported: SyntaxError"]),
        ("plugin_ending", "raise SystemExit", ["module 'plugin_ending' cannot be imported: SystemExit"]),
        ("plugin_lines", "raise OSError('one\\ntwo')", ["module 'plugin_lines' cannot be imported: OSError: one"]),
    ],
)
@pytest.mark.usefixtures("forgotten")
def test_what_cannot_be_imported_is_refused_in_one_line(tmp_path, name, text, parts):
    if text is not None:
        (tmp_path / f"{name}.py").write_text(text)
    with pytest.raises(ValueError) as error:
        import_plugins([name], [str(tmp_path)])
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_commands_import_plugins_before_they_look_anything_up(tmp_path, capsys):
    unknown = {"plugins": ["not_there"], "space": "nowhere", "data": "nothing", "sampler": "none"}
    with pytest.raises(ValueError, match="plugins: module 'not_there'"):
        make_plan({**unknown, "runs_dir": str(tmp_path)})
    assert latency_command.main(["layers", "plugins=[not_there]", "space=nowhere"]) == 2
    assert "plugins: module 'not_there' cannot be imported" in capsys.readouterr().err


@pytest.mark.usefixtures("forgotten")
def test_a_worker_looks_where_its_driver_did(tmp_path, monkeypatch):
    (tmp_path / "plugin_of_the_driver.py").write_text("VALUE = 7")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, ""])
    folders = import_path()
    monkeypatch.setattr(sys, "path", sys.path[:-1])
    monkeypatch.chdir("/")
    with pytest.raises(ValueError, match="cannot be imported"):
        import_plugins(["plugin_of_the_driver"])
    import_plugins(["plugin_of_the_driver"], folders)
    assert sys.modules["plugin_of_the_driver"].VALUE == 7


@dataclass(frozen=True, kw_only=True)
class Wave(Block):
    """A convolution and a sine."""

    name: ClassVar[str] = "wave"
    out_channels: int = fields.out_channels()


class WaveBlock(nn.Module):
    def __init__(self, spec, in_channels, form):
        super().__init__()
        self.conv = conv_norm(in_channels, spec.out_channels, 3, form=form)

    def forward(self, x):
        return torch.sin(self.conv(x))


WAVES = Architecture((Wave(out_channels=4),), ((Wave(out_channels=6),),), (Classifier(),))
SHAPE = (3, 8, 8)


@pytest.mark.usefixtures("one_thread")
def test_an_operator_that_our_onnx_writer_lacks_is_exported_all_the_same(monkeypatch):
    monkeypatch.setitem(BLOCK_SCHEMAS, "wave", Wave)
    monkeypatch.setitem(BLOCKS, "wave", WaveBlock)
    with pytest.raises(onnx_file.UnknownOperator):
        onnx_file.onnx_model(build(WAVES, num_classes=3, input_shape=SHAPE, form="deploy"), SHAPE)
    network = randomise(build(WAVES, num_classes=3, input_shape=SHAPE)).eval()
    deployed = build(WAVES, num_classes=3, input_shape=SHAPE, form="deploy")
    deployed.load_state_dict(fuse(network).state_dict())
    images = torch.randn(5, *SHAPE)
    session = onnxruntime.InferenceSession(onnx_bytes(deployed, SHAPE), providers=["CPUExecutionProvider"])
    (given,) = session.run(None, {"images": images.numpy()})
    with torch.inference_mode():
        assert relative_difference(network(images), torch.from_numpy(given)) < 1e-4


def test_a_space_may_have_a_block_that_was_added_after_the_program_started(monkeypatch, tmp_path):
    text = "stem: [{block: [wave, conv], out_channels: 4}]\nhead: [{block: classifier}]\n"
    with pytest.raises(ValueError, match="'wave' is not allowed; allowed: one of conv"):
        space_of(tmp_path, text)
    monkeypatch.setitem(BLOCK_SCHEMAS, "wave", Wave)
    assert space_of(tmp_path, text).size == 2
    extending = write_space(
        tmp_path, "extends: space.yaml\nstem: {1: {block: wave, out_channels: [4, 6]}}\n", "more.yaml"
    )
    assert {arch.blocks[0] for arch in map(load_space(extending).sample, range(20))} == {
        Wave(out_channels=4),
        Wave(out_channels=6),
    }


def test_a_block_without_a_module_or_layers_is_named(monkeypatch):
    monkeypatch.setitem(BLOCK_SCHEMAS, "wave", Wave)
    with pytest.raises(ValueError, match="block 'wave' has no module"):
        build(WAVES, num_classes=3, input_shape=SHAPE)
    assert "wave" not in BLOCK_LAYERS
    with pytest.raises(ValueError, match="block 'wave' has no layers"):
        deploy_layers(WAVES, 3, SHAPE)


def test_a_plugin_in_a_folder_without_an_init_file_is_sent_whole(tmp_path, monkeypatch):
    (tmp_path / "unmarked").mkdir()
    (tmp_path / "unmarked" / "blocks.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert str(tmp_path / "unmarked") in shipped_code(["unmarked.blocks"])["py_modules"]
