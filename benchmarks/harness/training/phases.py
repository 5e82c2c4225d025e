"""What a recipe trains, phase by phase: on images or on stored features, ending with the epoch chosen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import msgspec

from backends import optimizers
from backends.base import Backend, ModelSpec, Pipeline
from benchmarks.harness.images import pipelines
from benchmarks.harness.images.data import DataSet
from benchmarks.harness.images.pipelines import Part, Parts, Scored
from benchmarks.harness.initial import Tensors
from benchmarks.harness.messages import Emit, EpochEnd, Notice, Stage, Step
from benchmarks.harness.plan import Cell
from benchmarks.harness.recipe import Phase
from benchmarks.harness.record import Epoch, Extraction, PhaseTraining, Training
from benchmarks.harness.training import features, loop
from benchmarks.harness.training.snapshot import Keeper, Notes, Snapshot, SnapshotError
from benchmarks.harness.training.starting import head_of

STEP_EVENTS_PER_SECOND = 5  # enough for a smooth bar, and nothing against a step


class Story:
    """What has been measured of a cell so far; what a failure leaves of it goes into the record too."""

    def __init__(self) -> None:
        self.curve: list[Epoch] = []
        self.hashes: list[str] = []
        self.extractions: list[Extraction] = []
        self.resumed: list[int] = []
        self.settings: dict[str, object] = {}


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """How a training ended. The network built is the one that was trained, with the weights chosen: of a
    training on features, the head alone."""

    correct: tuple[int, ...]
    """1 or 0 for each test image, in file order."""
    epoch: int
    first_step_seconds: float
    train: Pipeline
    """Of the last phase."""
    body: Tensors | None
    """Everything but the head, where the head was trained alone."""


def settings_of(cell: Cell, parts: Parts) -> Training:
    """The hyper-parameters in force: the recipe's, cut to the profile."""
    batch_size = cell.profile.batch_size or cell.recipe.batch_size
    steps = -(-len(parts.train.places) // batch_size)
    phases = tuple(_in_force(phase, cell.profile.epochs, steps) for phase in cell.recipe.phases)
    return Training(
        epochs=phases[-1].epochs,
        batch_size=batch_size,
        recipe_batch_size=cell.recipe.batch_size,
        image_size=cell.profile.image_size,
        optimizer=phases[-1].optimizer,
        phases=phases,
        train_images=len(parts.train.places),
        distinct_train_images=len(set(parts.train.places)),
        validation_images=len(parts.validation.places) if parts.validation else 0,
    )


def _in_force(phase: Phase, most: int | None, steps_per_epoch: int) -> PhaseTraining:
    epochs = phase.epochs
    if phase.on == "images" and most is not None:  # an epoch on stored features costs next to nothing
        epochs = min(epochs, most)
    schedule = optimizers.in_steps(phase.optimizer.schedule, steps_per_epoch=steps_per_epoch, epochs=epochs)
    return PhaseTraining(
        epochs=epochs,
        recipe_epochs=phase.epochs,
        on=phase.on,
        first_trained=phase.trainable.first,
        optimizer=msgspec.structs.replace(phase.optimizer, schedule=schedule),
    )


class Trainer:
    """Takes a network that has been built through the phases of its recipe."""

    def __init__(
        self,
        backend: Backend,
        spec: ModelSpec,
        cell: Cell,
        data: DataSet,
        story: Story,
        emit: Emit,
        keeper: Keeper | None = None,
    ) -> None:
        """Args:
        keeper: where the training is kept from epoch to epoch, and gone on with; None: nowhere.
        """
        self.backend, self.spec, self.cell, self.data = backend, spec, cell, data
        self.recipe = cell.recipe
        self.parts = pipelines.parts_of(
            data, self.recipe.validation, resampling_seed=cell.seed if cell.resampled else None
        )
        self.settings = settings_of(cell, self.parts)
        self.story, self.emit, self.keeper = story, emit, keeper

    def train(self) -> Trained:
        """Train all phases, or what a process that was killed has left of them.

        Raises:
            NumericalError: the loss or a logit is not finite.
            SnapshotError: the training cannot be kept.
        """
        saved = self._saved()
        body: Tensors | None = None
        for number, (phase, in_force) in enumerate(
            zip(self.recipe.phases, self.settings.phases, strict=True), start=1
        ):
            if saved is not None and number < saved.notes.phase:
                continue
            if body is not None:
                self.rebuild(body)
            make: PipelineOf = self._images
            body = None
            if phase.on == "features":
                make, body = self._enter_at_features()
            trained = self._train_phase(number, phase, in_force, make, saved)
            saved = None
        return msgspec.structs.replace(trained, body=body)

    def rebuild(self, body: Tensors) -> None:
        """The whole network again: the body as it was, and the head that was trained alone."""
        head = self.backend.export_weights()
        self.backend.build(self.spec)
        self.backend.load_weights({**body, **head}, head=True)

    def images(self, part: Part, *, training: bool, epoch: int = 1) -> Pipeline:
        """Batches of images."""
        return pipelines.pipeline(
            self.backend, self.spec, self.recipe, self.data, part, self.settings,
            training=training, seed=self.cell.seed, epoch=epoch,
        )  # fmt: skip

    def stored(self, part: Part, block: str | None = None) -> features.Stored:
        """The features of the part's whole split."""
        whole = pipelines.split_of(self.data, part)
        everything = range(len(whole.files))

        def pipeline_from(first: int) -> Pipeline:
            places = tuple(everything[first:])
            labels = tuple(whole.labels[first:])
            return self.images(Part(part.split, places, labels), training=False)

        found = features.open_store(
            self.backend,
            self.spec,
            self.recipe.transform(self.settings.image_size),
            split=part.split,
            data_sha256=self.data.sha256,
            count=len(everything),
            pipeline_from=pipeline_from,
            block=block,
            on_progress=self._told(f"extracting the features of the {part.split} images"),
        )
        self.story.extractions.append(found.extraction)
        return found

    # How

    def _images(self, part: Part, training: bool, epoch: int) -> Pipeline:
        return self.images(part, training=training, epoch=epoch)

    def _enter_at_features(self) -> tuple[PipelineOf, Tensors]:
        """Extract the features, and put the head alone into the network's place."""
        stored = {part.split: self.stored(part) for part in (self.parts.train, self.parts.test)}
        tensors = self.backend.export_weights()
        self.backend.build(msgspec.structs.replace(self.spec, entry="features"))
        head = head_of(tensors)
        self.backend.load_weights(head, head=True)
        labels = {"train": self.data.train.labels, "test": self.data.test.labels}
        masks = pipelines.masks_of(self.spec) if self.recipe.track == "matched" else None

        def make(part: Part, training: bool, epoch: int) -> Pipeline:
            return features.FeatureBatches(
                stored[part.split].values,
                labels[part.split],
                places=part.places,
                batch_size=self.settings.batch_size,
                training=training,
                wrap=self.backend.to_host_batch,
                dropout=masks,
                seed=self.cell.seed,
                epoch=epoch,
            )

        return make, {name: tensor for name, tensor in tensors.items() if name not in head}

    def _saved(self) -> Snapshot | None:
        """The training that another process has begun; its story becomes ours."""
        if self.keeper is None:
            return None
        try:
            saved = self.keeper.read()
        except SnapshotError as error:
            self.emit(Notice(text=f"{error}; the training starts anew"))
            return None
        if saved is not None:
            notes, story = saved.notes, self.story
            story.curve, story.hashes = list(notes.curve), list(notes.hashes)
            story.extractions = list(notes.extractions)
            story.resumed = [*notes.resumed, notes.curve[-1].epoch]
            self.emit(Notice(text=f"goes on after epoch {notes.curve[-1].epoch}"))
        return saved

    def _train_phase(
        self, number: int, phase: Phase, in_force: PhaseTraining, make: PipelineOf, saved: Snapshot | None
    ) -> Trained:
        backend, parts, curve, validation = self.backend, self.parts, self.story.curve, self.recipe.validation
        backend.set_trainable(phase.trainable)
        backend.configure_optimizer(in_force.optimizer)
        self.story.settings = backend.settings()
        chosen: loop.EpochResult | None = None
        weights: Tensors | None = None
        if saved is not None:
            backend.load_weights(saved.weights, head=True)
            backend.load_optimizer_state(saved.optimizer)
            chosen, weights = saved.notes.chosen, saved.chosen or saved.weights
        last = sum(row.phase < number for row in curve) + in_force.epochs
        if chosen is not None and self._gave_up(curve[-1], chosen.row):
            last = len(curve)
        train = make(parts.train, True, len(curve) + 1)
        results = loop.epochs(
            backend,
            train,
            Scored(make(parts.test, False, 1), parts.test.labels),
            validation=Scored(make(parts.validation, False, 1), parts.validation.labels)
            if parts.validation
            else None,
            train_images=len(parts.train.places),
            first=len(curve) + 1,
            last=last,
            phase=number,
            on_step=step_events(self.emit, last),
        )
        for result in self._noted(results, train, last):
            if validation is None or chosen is None or _accuracy(result) > _accuracy(chosen):
                chosen = result
                weights = backend.export_weights() if validation else None
            if phase.on == "images":  # an epoch on stored features takes no longer than to keep it
                self._keep(number, chosen, weights if chosen is not result else None)
            if self._gave_up(result.row, chosen.row):
                break
        assert chosen is not None
        if validation is not None and weights is not None:
            backend.load_weights(weights, head=True)
        return Trained(
            correct=chosen.correct,
            epoch=chosen.row.epoch,
            first_step_seconds=chosen.first_step_seconds,
            train=train,
            body=None,
        )

    def _noted(
        self, results: Iterable[loop.EpochResult], train: Pipeline, epochs: int
    ) -> Iterable[loop.EpochResult]:
        for result in results:
            self.story.curve.append(result.row)
            sha256 = getattr(train, "sha256", None)  # of the harness's own batches
            if sha256:
                self.story.hashes.append(sha256)
            self.emit(EpochEnd(row=result.row, epochs=epochs))
            yield result

    def _gave_up(self, latest: Epoch, best: Epoch) -> bool:
        """Whether the validation set has waited long enough for a better epoch."""
        patience = self.recipe.validation.patience if self.recipe.validation else None
        return bool(patience) and latest.epoch - best.epoch >= (patience or 0)

    def _keep(self, number: int, chosen: loop.EpochResult, chosen_weights: Tensors | None) -> None:
        if self.keeper is None:
            return
        story = self.story
        self.keeper.write(
            Snapshot(
                notes=Notes(
                    key=self.keeper.key,
                    phase=number,
                    chosen=chosen,
                    curve=tuple(story.curve),
                    hashes=tuple(story.hashes),
                    extractions=tuple(story.extractions),
                    resumed=tuple(story.resumed),
                ),
                weights=self.backend.export_weights(),
                optimizer=self.backend.optimizer_state(),
                chosen=chosen_weights,
            )
        )

    def _told(self, what: str) -> features.OnProgress:
        def on_progress(done: int, total: int) -> None:
            self.emit(Stage(text=f"{what}: {done}/{total}"))

        return on_progress


def step_events(emit: Emit, epochs: int) -> loop.OnStep:
    """Sends an event for every step worth showing, of so many epochs."""
    last = 0.0

    def on_step(epoch: int, images: int, done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 1 / STEP_EVENTS_PER_SECOND:
            last = now
            emit(Step(epoch=epoch, epochs=epochs, done=done, images=images))

    return on_step


PipelineOf = Callable[[Part, bool, int], Pipeline]
"""Of a part: for training or not, from an epoch on."""


def _accuracy(result: loop.EpochResult) -> float:
    return result.row.validation_accuracy or 0.0
