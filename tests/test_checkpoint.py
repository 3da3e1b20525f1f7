"""Trainings that are written down and continued: as if they had never been interrupted, or from the beginning."""

import dataclasses
import json
import math

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from nas import pipeline, tensor_file
from nas.data import Augmentation
from nas.recipes import TrainConfig, TrainOverrides
from nas.training import checkpoint as checkpoints
from nas.training.checkpoint import Checkpoint, Progress, Stopwatch, rungs
from nas.training.failures import Diverged
from nas.training.loop import Training
from tests.searching import events_of, small_search
from tests.stripes import DEEP, equal_states, never, stripe_bytes, stripe_job

pytestmark = pytest.mark.usefixtures("one_thread")
DATA = stripe_bytes(64, Augmentation(1, True))
EPOCHS = 4
IDENTITY = {"arch_id": "a" * 12, "recipe": dataclasses.asdict(TrainConfig()), "seed": 3, "images": [64, 1, 8, 8]}


def training_of(recipe, seed=3, built=0):
    """A training of a network that fades and drops; `built` decides its first weights."""
    job = stripe_job(DATA, built, **recipe)
    return Training(job.build(DEEP), DATA, job.recipe(DEEP), seed, never)


def continued(training, epochs):
    """The losses of the next epochs."""
    return [epoch.loss for _, epoch in zip(range(epochs), training.epochs(), strict=False)]


# --- continuing


RECIPES = st.fixed_dictionaries(
    {
        "epochs": st.just(EPOCHS),
        "batch_size": st.sampled_from([16, 25]),
        "optimizer": st.sampled_from(["adamw", "sgd"]),
        "momentum": st.sampled_from([0.0, 0.9]),
        "schedule": st.sampled_from(["cosine", "one_cycle"]),
        "ema": st.sampled_from([0.0, 0.8]),
        "dropout": st.sampled_from([0.0, 0.3]),
        "drop_path": st.sampled_from([0.0, 0.3]),
        "randaugment": st.sampled_from([0, 9]),
        "mixup": st.sampled_from([0.0, 0.5]),
        "precision": st.sampled_from(["float32", "auto"]),
        "memory_format": st.sampled_from(["contiguous", "channels_last"]),
    }
)


@settings(
    max_examples=25, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate]
)  # shrinking takes minutes
@given(recipe=RECIPES, stops=st.lists(st.integers(0, EPOCHS), min_size=1, max_size=2).map(sorted))
def test_a_continued_training_ends_where_an_undisturbed_one_does(tmp_path_factory, recipe, stops):
    undisturbed = training_of(recipe)
    losses = continued(undisturbed, EPOCHS)
    file = Checkpoint(tmp_path_factory.mktemp("training") / "x.safetensors")
    here, heard = training_of(recipe), []
    for process, stop in enumerate(stops, 1):
        heard += continued(here, stop - here.done)
        progress = Progress(1.5 * process, 0.25, heard[-1] if heard else 0.0)
        file.save(here, IDENTITY, progress)
        torch.manual_seed(process)
        here = training_of(recipe, built=process)  # in the other process nothing is as it was
        assert file.restore(here, IDENTITY) == progress
        assert here.done == stop
    heard += continued(here, EPOCHS)
    assert heard == losses
    assert here.done == EPOCHS
    for before, after in ((undisturbed._network, here._network), (undisturbed.shipped, here.shipped)):
        assert equal_states(before, after)
    (tensors, words), (same, others) = undisturbed.state(), here.state()
    assert words == others and tensors.keys() == same.keys()
    assert all(torch.equal(tensors[name], same[name]) for name in tensors)


def test_a_checkpoint_says_how_far_the_training_is(tmp_path):
    file, training = Checkpoint(tmp_path / "x.safetensors"), training_of({"epochs": 3})
    for epoch in training.epochs():
        file.save(training, IDENTITY, Progress(loss=epoch.loss))
        other = training_of({"epochs": 3})
        assert file.restore(other, IDENTITY).loss == epoch.loss
        assert other.done == epoch.number
        assert [each.number for each in other.epochs()] == list(range(epoch.number + 1, 4))


# --- whose training it is


def from_the_beginning(file, identity=IDENTITY):
    """A training that finds nothing to continue from in a file is left as it was made."""
    training, fresh = training_of({"epochs": 3}, built=7), training_of({"epochs": 3}, built=7)
    progress = file.restore(training, identity)
    assert (progress.train_s, progress.waited_s) == (0, 0) and math.isnan(progress.loss)
    assert training.done == 0
    return equal_states(training._network, fresh._network) and training.state()[0].keys() == fresh.state()[0].keys()


@pytest.fixture
def written(tmp_path):
    """The checkpoint of a training after two epochs of three."""
    file, training = Checkpoint(tmp_path / "x.safetensors"), training_of({"epochs": 3})
    continued(training, 2)
    file.save(training, IDENTITY, Progress(2.0, 1.0, 0.5))
    return file


def test_another_training_starts_from_the_beginning(written):
    training = training_of({"epochs": 3})
    assert written.restore(training, dict(IDENTITY)) == Progress(2.0, 1.0, 0.5) and training.done == 2
    assert written.identity() == IDENTITY
    for name in IDENTITY:
        assert from_the_beginning(written, {**IDENTITY, name: "another"}), name


def test_what_changes_a_training_changes_its_identity(tmp_path):
    job = stripe_job(DATA, epochs=3)
    weights = tmp_path / "x.safetensors"
    weights.write_bytes(b"some weights")
    others = [
        dataclasses.replace(job, seed=job.seed + 1),
        dataclasses.replace(job, train=TrainOverrides(epochs=3, learning_rate=0.02)),
        dataclasses.replace(job, weights=weights),
        dataclasses.replace(job, data=dataclasses.replace(DATA, name="spots")),
        dataclasses.replace(job, data=stripe_bytes(72, Augmentation(1, True))),
    ]
    identities = [json.dumps(each.identity(DEEP)) for each in (job, *others)]
    assert len(set(identities)) == len(identities)
    weights.write_bytes(b"other weights")
    assert json.dumps(others[2].identity(DEEP)) != identities[3]
    assert json.loads(identities[0]) == dataclasses.replace(job, merge="none").identity(DEEP)


def changed(each, value):
    """Another value of a setting."""
    if "options" in each.metadata:
        return next(option for option in each.metadata["options"] if option != value)
    if value is None:
        return {"shift": 1, "flip": True, "dropout": 0.5, "drop_path": 0.5}.get(each.name, "x")
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else value / 2 or 0.5


@pytest.mark.parametrize("each", dataclasses.fields(TrainConfig), ids=lambda each: each.name)
def test_every_setting_makes_another_training_of_it(each):
    value = changed(each, getattr(TrainConfig(), each.name))
    identities = [stripe_job(DATA, **given).identity(DEEP) for given in ({}, {each.name: value})]
    assert identities[0] == stripe_job(DATA).identity(DEEP) != identities[1]


# --- files that are no such thing


@settings(max_examples=25, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True), garbage=st.binary(max_size=40))
def test_a_file_that_was_cut_off_is_none(tmp_path_factory, whole, share, garbage):
    file = tmp_path_factory.mktemp("cut") / "x.safetensors"
    file.write_bytes(whole[: int(share * len(whole))])
    assert from_the_beginning(Checkpoint(file))
    file.write_bytes(garbage)
    assert from_the_beginning(Checkpoint(file))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a checkpoint."""
    file = tmp_path_factory.mktemp("whole") / "x.safetensors"
    Checkpoint(file).save(training_of({"epochs": 3}), IDENTITY, Progress())
    return file.read_bytes()


SAID = {"identity": IDENTITY, "state": {"done": 2, "scaler": {}}, "progress": {}}


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"format": "pt"},
        {"training": ""},
        {"training": "{"},
        {"training": "null"},
        {"training": "3"},
        {"training": "[]"},
        {"training": '["identity", "state", "progress"]'},
        *({"training": json.dumps({key: SAID[key] for key in SAID if key != left_out})} for left_out in SAID),
    ],
)
def test_a_foreign_file_is_none(tmp_path, metadata):
    save_file({"weight": torch.ones(3)}, tmp_path / "x.safetensors", metadata=metadata)
    assert from_the_beginning(Checkpoint(tmp_path / "x.safetensors"))


def test_no_file_or_a_folder_is_none(tmp_path):
    assert from_the_beginning(Checkpoint(tmp_path / "x.safetensors"))
    assert from_the_beginning(Checkpoint(tmp_path))


# --- there in full or not at all


def test_an_interrupted_save_leaves_what_was_there(written, monkeypatch):
    before, seen = written.file.read_bytes(), []

    def half(tensors, file, metadata):
        file.write_bytes(before[:100])
        seen.append(written.file.read_bytes() == before)
        raise KeyboardInterrupt

    monkeypatch.setattr(tensor_file, "save_file", half)
    training = training_of({"epochs": 3})
    with pytest.raises(KeyboardInterrupt):
        written.save(training, IDENTITY, Progress())
    assert seen == [True]
    assert written.file.read_bytes() == before
    assert [each.name for each in written.file.parent.iterdir()] == ["x.safetensors"]


def test_a_checkpoint_is_never_seen_by_halves_and_is_written_over(tmp_path, monkeypatch):
    file, seen, save = Checkpoint(tmp_path / "deep" / "x.safetensors"), [], tensor_file.save_file

    def watched(tensors, draft, metadata):
        save(tensors, draft, metadata)
        seen.append(load_file(file.file) if file.file.exists() else None)

    monkeypatch.setattr(tensor_file, "save_file", watched)
    training = training_of({"epochs": 3})
    states = []
    for _ in training.epochs():
        file.save(training, IDENTITY, Progress())
        states.append(load_file(file.file))
        assert [each.name for each in file.file.parent.iterdir()] == ["x.safetensors"]
    assert seen[0] is None
    for old, state in zip(seen[1:], states, strict=False):
        assert old.keys() == state.keys() and all(torch.equal(old[name], state[name]) for name in old)
    file.discard()
    file.discard()
    assert not list(file.file.parent.iterdir())


# --- rungs and times


@given(st.integers(1, 10_000))
def test_rungs_are_the_halves_down_to_the_first_epoch(epochs):
    found = rungs(epochs)
    assert [after // 2 for after in (*found, epochs)][1:] == list(found)
    assert found == tuple(sorted(set(found))) and (epochs == 1 or found[0] == 1)
    assert all(0 < rung < epochs for rung in found)


def test_there_is_nothing_to_write_down_of_one_epoch():
    assert rungs(1) == ()
    assert rungs(16) == (1, 2, 4, 8)


class Clock:
    now, waited = 100.0, 7.0

    def perf_counter(self):
        return self.now


def test_times_add_up_over_processes(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(checkpoints, "time", clock)
    progress = Progress()
    for trained, waited in ((5.0, 2.0), (0.5, 0.0), (10.0, 4.0)):
        clock.waited += 1000  # what was waited before it began does not count
        watch = Stopwatch(lambda: clock.waited, progress)
        for part in (0.25, 0.75):
            clock.now += part * (trained + waited)
            clock.waited += part * waited
            now = watch.read(part)
        progress = now
        assert progress.loss == 0.75
    assert (progress.train_s, progress.waited_s) == pytest.approx((15.5, 6.0))


# --- in a search


def files_of(run):
    return sorted(file.name for file in (run.path / "checkpoints").glob("*"))


class Cut(Training):
    """A training of which the second is interrupted once, in its last epoch but one."""

    begun = 0

    def __init__(self, *args):
        super().__init__(*args)
        Cut.begun += 1
        self.number = Cut.begun

    def epochs(self):
        for epoch in super().epochs():
            if (self.number, epoch.number) == (2, 3):
                raise KeyboardInterrupt
            yield epoch


def test_an_interrupted_run_continues_its_trial_from_the_last_rung(tmp_path, monkeypatch):
    same = {"budget": 2, "objectives": ["error", "macs"], "train.epochs": 4, "train.ema": 0.9, "train.dropout": 0.2}
    undisturbed = small_search(tmp_path, run="undisturbed", **same)
    assert files_of(undisturbed) == []
    monkeypatch.setattr(pipeline, "Training", Cut)
    monkeypatch.setattr(Cut, "begun", 0)
    cut = small_search(tmp_path, run="cut", **same)
    assert cut.reason == "interrupted" and cut.trials["trial"].tolist() == [0]
    assert files_of(cut) == ["1.safetensors"]
    run = small_search(tmp_path, run="cut", resume=True, **same)
    started = [event["epochs"] for event in events_of(run) if event["event"] == "started" and event["trial"] == 1]
    assert started == [0, 2]
    assert run.trials["accuracy"].tolist() == undisturbed.trials["accuracy"].tolist()
    assert run.trials["epochs"].tolist() == [4] * 2
    told = [[event["loss"] for event in events_of(each) if event["event"] == "rung"] for each in (run, undisturbed)]
    assert told[0] == told[1]
    assert files_of(run) == []


def test_a_trial_that_fails_leaves_no_checkpoint(tmp_path, monkeypatch):
    there = []

    class Failing(Training):
        def epochs(self):
            for epoch in super().epochs():
                if epoch.number == 4:
                    there.extend(file.name for file in (tmp_path / "failing" / "checkpoints").iterdir())
                    raise Diverged("diverged: the loss is nan in epoch 4")
                yield epoch

    monkeypatch.setattr(pipeline, "Training", Failing)
    run = small_search(tmp_path, run="failing", budget=2, **{"train.epochs": 5})
    assert there == ["0.safetensors", "1.safetensors"]
    assert run.trials["state"].tolist() == ["failed"] * 2 and run.trials["epochs"].tolist() == [4] * 2
    assert files_of(run) == []
