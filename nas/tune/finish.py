"""The end of a run: the front is measured again, tested once, exported and written down."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence

import torch

from nas.config import SearchConfig, first_line
from nas.deploy import Model, export_model, load_deployed
from nas.exhausted import out_of_space
from nas.job import Job
from nas.latency.conditions import Conditions
from nas.latency.lane import Lane
from nas.latency.memory import LatencyMemory
from nas.latency.meter import Meter, reading_of
from nas.networks.builder import build
from nas.networks.folding import faded
from nas.networks.merging import MergePlan
from nas.reading import Reading
from nas.results import front_of, make_constraints, write_results, write_tables
from nas.store import RunStore
from nas.trial import Event, Remeasured, Tested, TrialRecord, Unfused, with_event
from nas.tune.plan import Plan

Say = Callable[[str], None]


def finish(plan: Plan, store: RunStore, meter: Meter, memory: LatencyMemory, reason: str, say: Say) -> None:
    """Makes what a run leaves behind, from what it has judged; can be repeated.

    Args:
        plan: what was searched.
        store: the run.
        meter: measures for its job.
        memory: of latencies.
        reason: why the search ended.
        say: takes lines for people.
    """
    config, job = plan.config, plan.job
    before = torch.get_num_threads()
    torch.set_num_threads(plan.threads)
    try:
        records = store.records()
        write_tables(store, records, config)  # what has been judged is to be read whatever happens below
        records = remeasured(plan, store, records, meter, memory, say)
        records = _unfused(plan, store, records, meter, say)
        with meter.lane.working():
            records = _tested(store, job, records, _front(records, config), meter.lane)
            write_results(store, records, config)
            front = _front(records, config)
            _export(store, job, (meter.lane, memory.where), front, say)
            _forget_trained(store, records, front)
    finally:
        torch.set_num_threads(before)
    store.write_end(reason)


def remeasured(
    plan: Plan, store: RunStore, records: list[TrialRecord], meter: Meter, memory: LatencyMemory, say: Say
) -> list[TrialRecord]:
    """Measures the front's latencies again on the now idle machine, until every member has been.

    A new value may take a network off the front and let another one in, which is measured then. Trials with
    one deploy form share the measurement.

    Returns:
        The records, with what was measured.
    """
    job = plan.job
    same: dict[tuple[object, ...], list[TrialRecord]] = {}
    for record in records:
        same.setdefault(_shipped_form(record), []).append(record)
    while fresh := [record for record in _front(records, plan.config) if not record.remeasured]:
        say(f"measuring {len(fresh)} networks of the front once more")
        events: list[Event] = []
        for form in dict.fromkeys(_shipped_form(record) for record in fresh):
            record = next(each for each in fresh if _shipped_form(each) == form)
            network, merges = _network(store, job, record)
            try:
                reading = reading_of(meter.measure(job.shipped(network))[0], merges)
            except Exception as error:  # whatever a runtime or a lost node raises, the other networks are measured
                say(f"trial {record.trial} is not measured again: {first_line(error)}")
                reading = _as_it_was(record)
            memory.remember(record.architecture.deploy_id, reading)
            again = [Remeasured(each.trial, reading) for each in same[form]]
            store.append(*again)
            events += again
        records = _with_events(records, events)
    return records


def _unfused(plan: Plan, store: RunStore, records: list[TrialRecord], meter: Meter, say: Say) -> list[TrialRecord]:
    """Measures the front's train forms beside what ships: what fusing has won. Only where latency is weighed.

    Left out are tables of layers, which have none of train forms, and int8, in which no train form is run.
    """
    job, events = plan.job, []
    fresh = [record for record in _front(records, plan.config) if record.unfused is None]
    if "latency_ms" not in plan.config.objectives or job.latency.backend == "table" or job.latency.dtype == "int8":
        return records
    if fresh:
        say(f"measuring {len(fresh)} networks of the front unfused")
    for record in fresh:
        arch, images = record.architecture, job.data
        try:
            network = build(arch, num_classes=images.num_classes, input_shape=images.input_shape, form="train")
            events.append(Unfused(record.trial, reading_of(meter.measure(faded(network))[0], MergePlan(()))))
        except Exception as error:  # as above; nothing else depends on it
            say(f"trial {record.trial} is not measured unfused: {first_line(error)}")
            continue
        store.append(events[-1])
    return _with_events(records, events)


def _with_events(records: list[TrialRecord], events: Sequence[Event]) -> list[TrialRecord]:
    of_trial = {event.trial: event for event in events}
    return [with_event(each, of_trial[each.trial]) if each.trial in of_trial else each for each in records]


def _as_it_was(record: TrialRecord) -> Reading:
    assert record.cost is not None
    return dataclasses.replace(record.cost.latency, doubt="could not be measured again at the end")


def _shipped_form(record: TrialRecord) -> tuple[object, ...]:
    """What trials of one latency have in common; those that were never priced have none."""
    return (record.architecture.deploy_id, record.cost.latency.merges) if record.cost else (None,)


def _front(records: list[TrialRecord], config: SearchConfig) -> list[TrialRecord]:
    return front_of(records, config.objectives, make_constraints(config.constraints))


def _network(store: RunStore, job: Job, record: TrialRecord) -> tuple[torch.nn.Module, MergePlan]:
    job.check(record.architecture)  # which a run that is resumed may have from another person
    weights = store.weights_file(record.trial)
    return load_deployed(record.architecture, weights, job.data.num_classes, job.data.input_shape)


def _tested(
    store: RunStore, job: Job, records: list[TrialRecord], front: list[TrialRecord], lane: Lane
) -> list[TrialRecord]:
    """Evaluates the final front on test data, if there are any, each network once."""
    events: list[Event] = []
    if not len(job.data.test):
        return records
    for record in front:
        if record.test_accuracy is None:
            accuracy = job.judged(_network(store, job, record)[0], job.data.test, lane.breathe)
            events.append(Tested(record.trial, accuracy))
            store.append(events[-1])
    return _with_events(records, events)


def _forget_trained(store: RunStore, records: list[TrialRecord], front: list[TrialRecord]) -> None:
    """Of networks that are not on the front the train form, which may be several times as large, is not kept."""
    for trial in {each.trial for each in records} - {each.trial for each in front}:
        store.trained_file(trial).unlink(missing_ok=True)


def _export(store: RunStore, job: Job, measured: tuple[Lane, Conditions], front: list[TrialRecord], say: Say) -> None:
    """`models/` holds the front and nothing else, with its latest figures."""
    lane, where = measured
    wanted = {str(record.trial) for record in front}
    models = store.path / "models"
    models.mkdir(exist_ok=True)
    for stale in models.iterdir():
        if stale.name not in wanted and stale.is_dir():
            shutil.rmtree(stale)
    for i, record in enumerate(front, 1):
        say(f"exporting {i} of {len(front)}: trial {record.trial}")
        lane.breathe()
        network, merges = _network(store, job, record)
        try:
            model = Model(
                record.architecture, network, job.shipped(network), merges, job.data, job.metrics(record, where)
            )
            export_model(model, store.model_dir(record.trial))
        except Exception as error:  # whatever an exporter or a runtime raises, the other networks are exported
            if out_of_space(error):
                raise
            say(f"trial {record.trial} is not exported: {error}")
