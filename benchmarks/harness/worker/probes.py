"""How far a data set is from what a network was pretrained on, measured by linear classifiers on its
features.

Only training images are looked at.
"""

from __future__ import annotations

import itertools

import numpy as np

import backends
from backends.architectures import architecture_of, blocks_of
from backends.base import DataError, Trainable
from backends.optimizers import SGD
from benchmarks.harness.advise import Evidence, Probe
from benchmarks.harness.messages import AdviseDone, AdviseJob, Emit, Stage, StartingWeights
from benchmarks.harness.recipe import Classifier
from benchmarks.harness.training import starting
from benchmarks.harness.training.classifier import unfitted
from benchmarks.harness.training.phases import Story, Trainer

FOLDS = 5
REGULARIZATION = 0.01
"""scikit-learn's C. Features outnumber images here: weaker regularisation only overfits."""
SHIFT_BATCHES = 16
RUNNING_KEEPS = 0.9
"""Of a running statistic at each step, in the matched track."""
NO_RATE = 1e-30
"""A rate of zero would have MXNet divide by it."""


def measure(job: AdviseJob, emit: Emit) -> AdviseDone:
    """Extract features of the training images and probe them."""
    card = backends.resolve(job.cell.backend)
    emit(Stage(text=f"importing {card.title}"))
    session = starting.session_of(job.cell, threads=job.threads, input_workers=job.input_workers)
    backend = backends.load(card)(session)
    labels = np.array(job.data.train.labels)

    def trainer_from(start: StartingWeights) -> Trainer:
        spec, _ = starting.build(backend, job.cell, job.data, start)
        return Trainer(backend, spec, job.cell, job.data, Story(), emit)

    def features(trainer: Trainer, block: str | None) -> np.ndarray:
        return np.array(trainer.stored(trainer.parts.train, block).values)

    pretrained = trainer_from(job.weights)
    blocks = blocks_of(pretrained.spec)
    middle_block = blocks[len(blocks) // 2]
    last, middle = features(pretrained, None), features(pretrained, middle_block)
    shift = statistics_shift(pretrained)
    random = features(trainer_from(StartingWeights(name="none")), None)
    emit(Stage(text="probing the features"))
    counts = np.bincount(labels)
    return AdviseDone(
        evidence=Evidence(
            images=len(labels),
            classes=job.data.classes,
            smallest_class=int(counts.min()),
            last=probe("the last features", last, labels),
            middle=probe(f"the features of {middle_block}", middle, labels),
            random=probe("random features", random, labels),
            middle_block=middle_block,
            shift=shift,
        )
    )


def probe(what: str, values: np.ndarray, labels: np.ndarray) -> Probe:
    """Cross-validated accuracy of logistic regression on features (N, F).

    Raises:
        DataError: a class has one image.
    """
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    if np.bincount(labels).min() < 2:
        raise DataError("a class has a single training image: nothing to validate a probe with; add images")
    folds = StratifiedKFold(min(FOLDS, int(np.bincount(labels).min())), shuffle=True, random_state=0)
    model = unfitted(Classifier(kind="logistic", block="", regularization=REGULARIZATION), seed=0)
    right = cross_val_predict(model, values, labels, cv=folds) == labels
    return Probe(what=what, correct=int(right.sum()), images=len(labels))


def statistics_shift(trainer: Trainer) -> float | None:
    """How far the batch means of these images lie from those of the source that batch norm has stored, in the
    stored standard deviations: root mean square over all channels of all layers. None without batch norm.

    Read off a few training steps whose rate is next to nothing; the weights are put back.
    """
    backend = trainer.backend
    before = backend.export_weights()
    names = [name for name in before if name.endswith(".running_mean")]
    epsilon = architecture_of(trainer.spec.architecture).batch_norm_epsilon
    if epsilon is None:
        return None
    backend.set_trainable(Trainable(first="all", batch_norm="batch"))
    backend.configure_optimizer(SGD(learning_rate=NO_RATE))
    steps = 0
    for batch in itertools.islice(trainer.images(trainer.parts.train, training=True), SHIFT_BATCHES):
        backend.train_step(batch)
        steps += 1
    backend.take_metrics()
    after = backend.export_weights()
    backend.load_weights(before, head=True)
    kept = RUNNING_KEEPS**steps
    shifts = [
        (after[name] - before[name]) / (1 - kept) / np.sqrt(before[name.replace("mean", "var")] + epsilon)
        for name in names
    ]
    return float(np.sqrt(np.mean(np.square(np.concatenate(shifts)))))
