"""Tables of layers: what a network is made of, what it sums up to, which files are none."""

import numpy as np
import pytest
import torch
from torch import nn

import nas
from nas.config import LatencyConfig
from nas.latency.backends import backend_for
from nas.latency.conditions import timed_device
from nas.latency.measure import measure
from nas.latency.prepared import TABLE, NotSupported
from nas.latency.reference import batch_of_noise
from nas.latency.sampling import FEWEST_ROUNDS
from nas.latency.table import NETWORK, layers_of, look_up, read_table, table_of, write_table
from tests.helpers import relative_difference

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPE = (3, 9, 8)
STEM = "conv 3-4 3x3 stride 2x1 padding 1x1 groups 1 on 9x8"
SAME = "conv 4-4 3x3 stride 1x1 padding 1x1 groups 1 on 5x8"
DEPTHWISE = "conv 4-4 3x1 stride 1x1 padding 0x0 dilation 2x1 groups 4 on 5x8"
LINEAR = "linear 4-5"
ROWS = {NETWORK: 0.5, STEM: 8.0, SAME: 2.0, DEPTHWISE: 0.25, LINEAR: 16.0}


class Network(nn.Module):
    """One convolution twice, another of the same structure, and one that never runs."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, (2, 1), 1)
        self.twice, self.alike = nn.Conv2d(4, 4, 3, 1, 1), nn.Conv2d(4, 4, 3, 1, 1)
        self.depthwise = nn.Conv2d(4, 4, (3, 1), dilation=(2, 1), groups=4)
        self.unused = nn.Conv2d(4, 99, 7)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))

    def forward(self, x):
        x = torch.relu(self.twice(torch.relu(self.twice(self.stem(x)))))
        return self.head(self.depthwise(self.alike(x)))


def network():
    torch.manual_seed(0)
    return Network().eval()


def table_file(folder, text):
    file = folder / "table.csv"
    file.write_text(text, encoding="utf-8")
    return file


# --- layers


def test_layers_are_named_by_all_that_decides_their_latency_and_counted():
    found = layers_of(network(), SHAPE)
    assert {name: times for name, (_, _, times) in found.items()} == {STEM: 1, SAME: 3, DEPTHWISE: 1, LINEAR: 1}
    assert list(found) == [STEM, SAME, DEPTHWISE, LINEAR]
    assert [entering for _, entering, _ in found.values()] == [SHAPE, (4, 5, 8), (4, 5, 8), (4, 1, 1)]
    assert [type(module) for module, _, _ in found.values()] == [nn.Conv2d] * 3 + [nn.Linear]


def test_each_layer_runs_on_what_enters_it():
    arch = nas.load_space("mobile").sample(1)
    deployed = nas.build(arch, num_classes=10, input_shape=SHAPE, form="deploy")
    for module, entering, times in layers_of(deployed, SHAPE).values():
        rows = entering[:1] if isinstance(module, nn.Linear) else entering
        assert module(torch.zeros(1, *rows)).numel() > 0 and times > 0


def test_a_network_without_layers_has_none():
    assert layers_of(nn.Sequential(nn.ReLU()), SHAPE) == {}
    assert look_up(nn.Sequential(nn.ReLU()), SHAPE, ROWS) == 0.5


# --- sums


def test_a_latency_is_the_sum_of_the_layers_as_often_as_they_run():
    assert look_up(network(), SHAPE, ROWS) == 0.5 + 8 + 3 * 2 + 0.25 + 16
    assert look_up(network(), SHAPE, ROWS | {"conv of another network": 99.0}) == 30.75


@pytest.mark.parametrize("missing", ROWS)
def test_a_row_that_is_missing_is_named(missing):
    rows = {name: value for name, value in ROWS.items() if name != missing}
    with pytest.raises(ValueError) as refused:
        look_up(network(), SHAPE, rows)
    assert str(refused.value) == f"latency.table has no row {missing!r}"


def test_of_several_missing_rows_the_first_is_named_and_the_others_counted():
    with pytest.raises(ValueError) as refused:
        look_up(network(), SHAPE, {NETWORK: 0.5, SAME: 1.0})
    assert str(refused.value) == f"latency.table has no row {STEM!r} and 2 more"


# --- files


def test_a_table_survives_its_file(tmp_path):
    rows = {NETWORK: 1e-9, 'a "quoted", name': 123456.0, "ein Größeres": 0.0, LINEAR: 0.1}
    write_table(tmp_path / "new" / "table.csv", rows)
    assert read_table(tmp_path / "new" / "table.csv") == rows
    write_table(tmp_path / "new" / "table.csv", ROWS)
    assert read_table(tmp_path / "new" / "table.csv") == ROWS
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["table.csv"]


def test_any_program_may_write_one(tmp_path):
    text = "latency_ms,layer,note\n1e-2, spaced ,a\n 3 ,linear 4-5,\n0,network\n"
    assert read_table(table_file(tmp_path, text)) == {" spaced ": 0.01, "linear 4-5": 3.0, "network": 0.0}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "is not a CSV with columns layer, latency_ms: its columns are none"),
        ("layer,ms\nnetwork,1\n", "is not a CSV with columns layer, latency_ms: its columns are layer, ms"),
        ("network,1\n", "is not a CSV with columns layer, latency_ms: its columns are network, 1"),
        ("layer,latency_ms\n", "lacks the row 'network'"),
        ("layer,latency_ms\nlinear 4-5,2\n", "lacks the row 'network'"),
        ('layer,latency_ms\nnetwork,1\n"a\nb",-1\n', "'a\\nb': -1.0 ms is not allowed"),
        ("layer,latency_ms\nnetwork,fast\n", "could not convert string to float: 'fast'"),
        ("layer,latency_ms\nnetwork\n", "is not a CSV with columns layer, latency_ms"),
        ("layer,latency_ms\nnetwork,\n", "is not a CSV with columns layer, latency_ms"),
        ('layer,latency_ms\n"network,1\n', "unexpected end of data"),
        ('layer,latency_ms\n"net"work,1\n', "is not a CSV with columns layer, latency_ms"),
        ("layer,latency_ms\nnetwork,1\nb,2\nnetwork,3\n", "has a layer twice"),
        ("layer,latency_ms\nnetwork,-0.5\n", "'network': -0.5 ms is not allowed; allowed: 0 and more"),
        ("layer,latency_ms\nnetwork,nan\n", "'network': nan ms is not allowed"),
        ("layer,latency_ms\nnetwork,inf\n", "'network': inf ms is not allowed"),
    ],
    ids=str,
)
def test_what_is_no_table_is_refused_in_one_line(tmp_path, text, part):
    file = table_file(tmp_path, text)
    with pytest.raises(ValueError) as refused:
        read_table(file)
    said = str(refused.value)
    assert said.startswith(f"latency.table={file}") and part in said and "\n" not in said


def test_what_is_no_text_or_not_there_is_refused(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\0\1")
    with pytest.raises(ValueError, match=r"^latency\.table=.* is not text in UTF-8: byte 0$"):
        read_table(tmp_path / "binary")
    for file in (tmp_path / "none", tmp_path):
        with pytest.raises(ValueError, match=r"^latency\.table=.* cannot be read: (No such file|Is a directory).*$"):
            read_table(file)


def test_a_table_has_to_be_given():
    with pytest.raises(ValueError, match=r"^latency\.backend=table needs latency\.table=FILE"):
        table_of(LatencyConfig(backend="table"))


# --- as a runtime


@pytest.fixture
def config(tmp_path):
    write_table(tmp_path / "table.csv", ROWS)
    return LatencyConfig(backend="table", table=str(tmp_path / "table.csv"))


def prepared(config, shape=SHAPE):
    backend = backend_for(config, "cpu")[1]
    return backend.prepare(network(), batch_of_noise(shape, 2, "cpu"), config)


@torch.no_grad()
def test_the_network_runs_in_torch_and_its_time_is_the_tables(config):
    with prepared(config) as ready:
        assert [ready.time_once() for _ in range(3)] == [30.75] * 3 and ready.clock == TABLE
        expected = network()(batch_of_noise(SHAPE, 2, "cpu"))
        assert relative_difference(expected, torch.from_numpy(np.asarray(ready.run()))) < 1e-5


def test_what_a_table_says_is_a_measurement_without_spread_doubt_or_lane(config, lane):
    measured = measure(network(), config, input_shape=SHAPE, lane=lane)
    assert measured.median_ms == 30.75 and measured.interval_ms == (30.75, 30.75) and measured.iqr_ms == 0
    assert measured.stable and measured.reference is None and measured.reference_ms is None
    assert (measured.backend, measured.clock, measured.load) == ("table", TABLE, None)
    assert len(measured.samples.rounds_ms) == FEWEST_ROUNDS
    assert not lane.folder.exists()


@pytest.mark.parametrize("shape", [(3, 9, 9), (3, 2, 2), (4, 9, 8)], ids=str)
def test_a_network_that_the_table_does_not_hold_is_not_supported(config, shape):
    with pytest.raises(NotSupported) as refused, prepared(config, shape):
        pass
    assert "\n" not in str(refused.value)


def test_tables_of_other_numbers_are_other_devices(config, tmp_path):
    names = []
    for rows in (ROWS, ROWS | {LINEAR: 16.5}, dict(reversed(ROWS.items()))):
        write_table(tmp_path / "table.csv", rows)
        names.append(timed_device(config, "cpu"))
    assert names[0] == names[2] != names[1]
    assert all(name.startswith("table ") for name in names)
    (tmp_path / "table.csv").unlink()
    with pytest.raises(ValueError, match=r"^latency\.table="):
        timed_device(config, "cpu")
