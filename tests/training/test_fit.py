import math
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics
from torch import nn

from sagemaker_monai.data.datasets import SPLITS, Dataset, Record
from sagemaker_monai.data.loading import LoadedDataset
from sagemaker_monai.errors import ConfigError, TrainingStopped
from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.networks.networks import build_network, network_def
from sagemaker_monai.preprocessing.preprocessing import build_preprocessing, photograph_preprocessing
from sagemaker_monai.tasks import metrics
from sagemaker_monai.tasks.losses import IMBALANCE
from sagemaker_monai.training import fit as training
from sagemaker_monai.training.distributed import ALONE
from sagemaker_monai.training.fit import fit
from sagemaker_monai.training.plan import choose_precision, make_plan
from sagemaker_monai.training.run import split_into_batches, step_seed
from tests.support.exhaustive import exhaustive

LABELS = ("red", "green", "blue")
SIZES = {"training": 24, "validation": 12, "test": 0}
SPEC = photograph_preprocessing(channels=3, image_size=32, fit="stretch")
CPU = torch.device("cpu")


class SmallNetwork(nn.Sequential):
    """Trains in milliseconds, and has what is special about larger ones: BatchNorm and dropout."""

    def __init__(self, classes):
        super().__init__(
            nn.Conv2d(3, 8, 3, stride=4),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(0.1),
            nn.Linear(8, classes),
        )


class NormFree(nn.Sequential):
    """The same without BatchNorm and dropout, so that it learns the same from a batch and from its parts."""

    def __init__(self, classes):
        super().__init__(
            nn.Conv2d(3, 8, 3, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes)
        )


@pytest.fixture
def small_network(monkeypatch):
    monkeypatch.setattr(training, "build_network", lambda definition: SmallNetwork(definition["num_classes"]))


small = pytest.mark.usefixtures("small_network")


def drawn(*, noise=60, sizes=SIZES, classes=3):
    """Noise in which one channel is brighter; at the default strength the classes can be told apart."""
    generator = np.random.default_rng(0)
    pixels, records, rows, start = [], {}, {}, 0
    for split in SPLITS:
        labels = [index % classes for index in range(sizes[split])]
        for label in labels:
            values = generator.integers(0, noise, (3, 32, 32))
            values[label] += 80
            pixels.append(values.astype(np.uint8))
        records[split] = tuple(Record(Path("x"), f"{split}/{i}", label, str(i), {}) for i, label in enumerate(labels))
        rows[split] = np.arange(start, start + len(labels))
        start += len(labels)
    dataset = Dataset(LABELS, **records, fingerprint="0" * 64)
    return LoadedDataset(dataset, np.stack(pixels), rows, dict.fromkeys(SPLITS, ()))


def run(
    data=None,
    *,
    is_stopping=lambda: False,
    pretrained=None,
    checkpoint_dir=None,
    on_epoch=lambda row: None,
    on_resume=None,
    processes=ALONE,
    **hyperparameters,
):
    settings = {"epochs": 2, "batch_size": 8, "image_size": 32} | hyperparameters
    data = data or drawn()
    return fit(
        make_plan(TrainConfig(**settings), data.dataset, CPU, spec=SPEC),
        data,
        device=CPU,
        pretrained=pretrained,
        checkpoint_dir=checkpoint_dir,
        on_epoch=on_epoch,
        on_resume=on_resume,
        processes=processes,
        is_stopping=is_stopping,
    )


def without_time(history):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


def same_weights(first, second):
    return all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)


@pytest.mark.parametrize(
    "hyperparameters", exhaustive([{}, {"network": "efficientnet-b0"}]), ids=["resnet18", "efficientnet-b0"]
)
def test_two_runs_are_equal_bit_by_bit_whatever_the_state_of_the_generators(hyperparameters):
    first = run(batch_size=12, **hyperparameters)
    torch.manual_seed(999)
    second = run(batch_size=12, **hyperparameters)

    assert same_weights(first, second)
    assert without_time(first.history) == without_time(second.history)


@small
def test_a_step_does_not_depend_on_random_numbers_that_were_drawn_before_it():
    disturbed = run(epochs=3, on_epoch=lambda row: torch.rand(7))

    assert same_weights(run(epochs=3), disturbed)


@small
def test_another_seed_gives_another_training():
    assert not same_weights(run(seed=1), run(seed=2))


@small
def test_training_leaves_the_global_state_of_torch_as_it_was():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)

    run(epochs=1, deterministic=True)

    assert torch.equal(torch.rand(3), expected)
    assert not torch.are_deterministic_algorithms_enabled()


@small
@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_what_ships_is_what_was_validated_in_the_best_epoch(ema_decay):
    data = drawn(noise=175)
    result = run(data, epochs=4, ema_decay=ema_decay)
    best = result.history[result.best_epoch - 1]

    network = SmallNetwork(len(LABELS))
    network.load_state_dict(result.weights)
    network.eval()
    inputs = build_preprocessing(SPEC).scale(torch.from_numpy(data.pixels[data.rows["validation"]]))
    with torch.inference_mode():
        probabilities = torch.softmax(network(inputs).double(), dim=1).numpy()
    targets = [record.label for record in data.dataset.validation]

    assert sklearn_metrics.log_loss(targets, probabilities) == pytest.approx(best["validation_loss"], rel=1e-4)
    assert sklearn_metrics.balanced_accuracy_score(targets, probabilities.argmax(1)) == pytest.approx(
        best["validation_balanced_accuracy"]
    )
    assert best["validation_balanced_accuracy"] == max(row["validation_balanced_accuracy"] for row in result.history)


@small
@pytest.mark.parametrize("imbalance", IMBALANCE)
def test_every_method_against_imbalance_learns_what_can_be_learned(imbalance):
    result = run(epochs=20, imbalance=imbalance, augmentation="light", learning_rate=0.02)

    assert result.history[-1]["validation_balanced_accuracy"] == 1
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]


@small
def test_a_row_of_the_history_names_every_metric():
    assert list(run(epochs=1).history[0]) == [
        "epoch",
        "train_loss",
        "validation_loss",
        "validation_accuracy",
        "validation_balanced_accuracy",
        "validation_auc",
        "best_epoch_loss",
        "best_epoch_accuracy",
        "best_epoch_balanced_accuracy",
        "best_epoch_auc",
        "validation_sensitivity_red",
        "validation_sensitivity_green",
        "validation_sensitivity_blue",
        "learning_rate",
        "seconds",
    ]


def with_scores(monkeypatch, values, losses=None):
    """Make validation find these values, epoch by epoch."""
    epochs = count()

    def score(*_):
        epoch = next(epochs)
        return {
            "loss": losses[epoch] if losses else 1.0,
            "accuracy": 0.5,
            "balanced_accuracy": values[epoch],
            "auc": 0.5,
            "sensitivity": dict.fromkeys(LABELS, 0.5),
        }

    monkeypatch.setattr(metrics, "score", score)


@small
@pytest.mark.parametrize(
    ("values", "losses", "settings", "epochs", "best", "stopped"),
    [
        (
            [0.5, 0.7, 0.6, 0.69, 0.9],
            None,
            {"early_stop_patience": 2},
            4,
            2,
            "no better balanced_accuracy for 2 epochs",
        ),
        ([0.5, 0.4, 0.3], None, {}, 3, 1, None),
        ([0.5, 0.8, 0.8, 0.8], [0.1, 0.5, 0.3, 0.4], {}, 4, 3, None),  # of equal epochs the one with the smaller loss
        ([0.5, 0.9, 0.1], [0.3, 0.4, 0.2], {"best_metric": "loss"}, 3, 3, None),
    ],
    ids=["patience", "no patience", "equal epochs", "loss"],
)
def test_the_best_epoch_ships_and_patience_ends_training(monkeypatch, values, losses, settings, epochs, best, stopped):
    with_scores(monkeypatch, values, losses)

    result = run(epochs=len(values), **settings)

    assert (len(result.history), result.best_epoch, result.stopped) == (epochs, best, stopped)


@small
def test_every_row_has_the_scores_of_the_epoch_that_would_ship_after_it(monkeypatch):
    with_scores(monkeypatch, [0.5, 0.8, 0.6, 0.9], losses=[0.1, 0.4, 0.2, 0.3])

    rows = run(epochs=4).history

    assert [row["best_epoch_balanced_accuracy"] for row in rows] == [0.5, 0.8, 0.8, 0.9]
    assert [row["best_epoch_loss"] for row in rows] == [0.1, 0.4, 0.4, 0.3]
    assert [row["validation_loss"] for row in rows] == [0.1, 0.4, 0.2, 0.3]


def stop_after(steps):
    calls = count(1)
    return lambda: next(calls) > steps


@small
def test_a_run_that_is_stopped_later_gives_the_best_epoch_so_far():
    whole = run(epochs=1, schedule="constant", warmup_epochs=0.0)
    stopped = run(epochs=9, schedule="constant", warmup_epochs=0.0, is_stopping=stop_after(4))  # 3 steps an epoch

    assert len(stopped.history) == 1
    assert stopped.stopped == "asked to stop in epoch 2"
    assert same_weights(whole, stopped)


@small
def test_a_run_that_is_stopped_in_its_first_epoch_gives_what_it_has_and_says_so():
    stopped = run(is_stopping=stop_after(2))

    assert (stopped.best_epoch, stopped.history) == (0, [])
    assert stopped.stopped == "asked to stop in epoch 1, after 2 of 3 steps: never validated"
    assert not same_weights(stopped, run(is_stopping=stop_after(1)))


@small
def test_a_run_that_is_stopped_before_its_first_step_has_nothing_to_save():
    with pytest.raises(TrainingStopped, match="before its first step"):
        run(is_stopping=lambda: True)


@small
def test_a_run_with_one_step_an_epoch_is_stopped_too():
    stopped = run(epochs=9, batch_size=100, is_stopping=stop_after(2))

    assert (len(stopped.history), stopped.stopped) == (2, "asked to stop in epoch 3")


@pytest.mark.parametrize("batch_size", [23, 100])
def test_a_last_batch_of_one_and_a_batch_larger_than_the_data_train(batch_size):
    result = run(epochs=1, batch_size=batch_size, network="efficientnet-b0")

    assert math.isfinite(result.history[0]["train_loss"])


@given(st.integers(2, 300), st.integers(2, 64))
def test_batches_hold_every_image_once_and_never_one_alone(number, batch_size):
    batches = split_into_batches(torch.arange(number), batch_size)

    assert torch.cat(batches).tolist() == list(range(number))
    assert all(2 <= len(batch) <= batch_size + 1 for batch in batches)


@given(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 100), st.integers(-1, 1000)), st.data())
def test_each_step_has_a_seed_of_its_own(place, data):
    other = data.draw(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 100), st.integers(-1, 1000)))

    assert (step_seed(*place) == step_seed(*other)) == (place == other)
    assert 0 <= step_seed(*place) < 2**63


@pytest.mark.parametrize("clip", [0.001, 0.0])
@small
def test_clipping_bounds_the_step(clip):
    """One step of plain gradient descent with rate 1 moves the weights by the norm of the gradient."""
    settings = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "learning_rate": 1.0, "batch_size": 24}
    settings |= {"schedule": "constant", "warmup_epochs": 0.0, "ema_decay": 0.0, "epochs": 1}

    result = run(clip_grad_norm=clip, **settings)

    torch.manual_seed(0)
    start = SmallNetwork(len(LABELS))
    moved = math.sqrt(sum(float((result.weights[n] - p.detach()).square().sum()) for n, p in start.named_parameters()))
    assert (moved == pytest.approx(0.001, rel=1e-2)) if clip else (moved > 0.1)


@small
def test_a_loss_that_is_no_number_stops_training_with_a_remedy():
    with pytest.raises(ConfigError, match=r"diverged.* lower learning_rate \(now 10\)"):
        run(optimizer="sgd", learning_rate=10.0, weight_decay=1.0, schedule="constant", clip_grad_norm=0.0, epochs=60)


@small
def test_a_metric_that_the_validation_split_cannot_give_is_refused_before_the_first_step():
    steps = count()
    data = drawn()
    one_class = tuple(record for record in data.dataset.validation if record.label == 0)
    dataset = Dataset(LABELS, data.dataset.training, one_class, (), "0" * 64)
    rows = data.rows | {"validation": data.rows["validation"][::3]}

    with pytest.raises(ConfigError, match="best_metric auc is undefined on the validation split"):
        run(
            LoadedDataset(dataset, data.pixels, rows, data.unreadable),
            best_metric="auc",
            is_stopping=lambda: next(steps) < 0,
        )
    assert next(steps) == 0


def test_the_precision_on_a_cpu_is_fp32_unless_asked():
    used = {name: choose_precision(TrainConfig(precision=name), CPU) for name in ("auto", "fp32", "bf16")}

    assert used == {"auto": "fp32", "fp32": "fp32", "bf16": "bf16"}
    with pytest.raises(ConfigError, match="precision fp16 needs a GPU"):
        choose_precision(TrainConfig(precision="fp16"), CPU)


@small
def test_bf16_training_learns_and_ships_float32():
    result = run(precision="bf16", epochs=20, augmentation="light", learning_rate=0.02)

    assert result.history[-1]["validation_balanced_accuracy"] == 1
    assert result.weights["0.weight"].dtype == torch.float32
    plan = make_plan(TrainConfig(precision="bf16", image_size=32), drawn().dataset, CPU, spec=SPEC)
    assert plan.precision == "bf16"


def test_training_starts_from_the_pretrained_weights(tmp_path):
    torch.manual_seed(77)
    source = build_network(network_def("resnet18", in_channels=3, num_classes=3, image_size=32)).state_dict()
    torch.save(source, tmp_path / "w.pt")

    warm = run(epochs=1, batch_size=24, learning_rate=1e-9, pretrained=tmp_path / "w.pt", weight_decay=0.0)

    assert warm.pretrained.missing == ()
    assert torch.allclose(warm.weights["layer1.0.conv1.weight"], source["layer1.0.conv1.weight"], atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gpu_trains_repeatably_in_every_precision(precision):
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    config = TrainConfig(epochs=3, batch_size=8, image_size=32, deterministic=True, precision=precision)
    first, second = (
        fit(
            make_plan(config, drawn().dataset, torch.device("cuda"), spec=SPEC),
            drawn(),
            device=torch.device("cuda"),
            on_epoch=lambda row: None,
            is_stopping=lambda: False,
        )
        for _ in range(2)
    )

    assert same_weights(first, second)
    assert first.history[-1]["validation_balanced_accuracy"] == 1
