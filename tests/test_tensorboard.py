"""TensorBoard shows what metrics.jsonl says."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from adapter4rec.runs import tensorboard
from adapter4rec.runs.tensorboard import ScalarLog
from adapter4rec.utils.errors import UserError

RECORDS = [
    {"epoch": 1, "split": "validation", "loss": 0.5, "HR@10": 3.0},
    {"epoch": 2, "split": "validation", "loss": 0.25, "HR@10": 4.0},
    {"epoch": 1, "split": "test", "HR@10": 3.5},
]


def scalars_in(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def test_the_same_scalars_and_no_epoch_twice_after_resuming(tmp_path):
    ScalarLog(tmp_path).write([RECORDS[0], RECORDS[1] | {"loss": 9.0}])  # a process that was killed
    resumed = ScalarLog(tmp_path)
    for count in (1, 2, 3):
        resumed.write(RECORDS[:count])
    assert scalars_in(tmp_path) == {
        "validation/loss": [(1, 0.5), (2, 0.25)],
        "validation/HR@10": [(1, 3.0), (2, 4.0)],
        "test/HR@10": [(1, 3.5)],
    }


def test_a_missing_package_is_told_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install tensorboard"):
        ScalarLog(tmp_path)
