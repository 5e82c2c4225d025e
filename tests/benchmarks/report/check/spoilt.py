"""Every way in which a test makes a valid run invalid: at least one for each rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from tests.benchmarks.report.check.drafts import MATCHED, PACKAGES, Draft
from tests.benchmarks.report.samples import NOISY

Spoil = Callable[[Draft], object]


class Spoilt(NamedTuple):
    """One way to make a run invalid."""

    rule: str
    """That it breaks."""
    spoil: Spoil
    said: str
    """A pattern in the line that is printed."""
    also: tuple[str, ...] = ()
    """Rules that it cannot but break, too."""


KERAS = f"keras-{MATCHED}-s1"
TUNED = f"gluon-{MATCHED}-tuned-s0"
NATIVE = "keras-native-vgg16-finetune-s1"


def change(cell_id: str, **changes: object) -> Spoil:
    """Other values in one record; `__` stands for a dot."""
    return lambda draft: draft.change(
        cell_id, {key.replace("__", "."): value for key, value in changes.items()}
    )


def edit(cell_id: str, before: str, after: str) -> Spoil:
    return lambda draft: draft.edit(cell_id, before, after)


def write_file(name: str, content: bytes) -> Spoil:
    return lambda draft: draft.afterwards.append(lambda folder: (folder / name).write_bytes(content))


def insert(name: str, **fields: object) -> Spoil:
    """More fields in a file of JSON."""

    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return lambda draft: draft.afterwards.append(change)


def delete_file(name: str) -> Spoil:
    return lambda draft: draft.afterwards.append(lambda folder: (folder / name).unlink())


def identify(**fields: str) -> Spoil:
    def spoil(draft: Draft) -> None:
        draft.identity = msgspec.structs.replace(draft.identity, **fields)

    return spoil


def remove(*cell_ids: str) -> Spoil:
    return lambda draft: [draft.remove(cell_id) for cell_id in cell_ids]


def fail(beginning: str) -> Spoil:
    """The cells whose id begins so."""
    return lambda draft: [draft.fail(cell_id) for cell_id in draft.records if cell_id.startswith(beginning)]


def on_gpu(beginning: str) -> Spoil:
    """The cells whose id begins so."""

    def spoil(draft: Draft) -> None:
        for cell_id in [cell_id for cell_id in draft.records if cell_id.startswith(beginning)]:
            draft.recast(cell_id, device="cuda")

    return spoil


def quick_on_gpu(flops: float) -> Spoil:
    """All cells on a GPU, and one of them as quick as that in training, per second."""

    def spoil(draft: Draft) -> None:
        on_gpu("")(draft)
        draft.change(KERAS.replace("-s1", "-cuda-s1"), {"throughput.achieved_flops": flops})

    return spoil


def frozen(recipe: str, **weights: object) -> Spoil:
    """The tuned cells become those of another recipe, not tuned, from other weights."""

    def spoil(draft: Draft) -> None:
        for cell_id in [cell_id for cell_id in draft.records if "-tuned" in cell_id]:
            start = msgspec.structs.replace(draft.records[cell_id].cell.weights, **weights)
            draft.recast(cell_id, variant="default", recipe=recipe, protocol="frozen", weights=start)

    return spoil


def unrecord(cell_id: str) -> Spoil:
    return lambda draft: draft.records.pop(cell_id)


def unplan(cell_id: str) -> Spoil:
    return lambda draft: draft.planned.pop(cell_id)


def copy_seed(draft: Draft) -> None:
    """Seed 1 is what seed 0 was."""
    draft.change(KERAS, {"trained_sha256": draft.records[KERAS.replace("s1", "s0")].trained_sha256})


def manifest_of(**fields: object) -> Spoil:
    def spoil(draft: Draft) -> None:
        draft.manifest = msgspec.structs.replace(draft.manifest, **fields)

    return spoil


def lose_images(draft: Draft) -> None:
    test = draft.manifest.test
    fewer = msgspec.structs.replace(test, files=test.files[:-1], labels=test.labels[:-1])
    manifest_of(test=fewer)(draft)


def lose_labels(draft: Draft) -> None:
    test = draft.manifest.test
    manifest_of(test=msgspec.structs.replace(test, labels=test.labels[:-1]))(draft)


def without_setting(draft: Draft) -> None:
    for cell_id, made in draft.records.items():
        if made.cell.backend == "gluon" and made.cell.track == "matched":
            kept = {key: value for key, value in made.settings.items() if key != "batch_norm"}
            draft.change(cell_id, {"settings": kept})


def of_backend(backend: str, place: str, value: object) -> Spoil:
    """Another value in all seeds and variants of a matched backend."""

    def spoil(draft: Draft) -> None:
        for cell_id, made in draft.records.items():
            if made.cell.backend == backend and made.cell.track == "matched":
                draft.change(cell_id, {place: value})

    return spoil


def all_cells(**changes: object) -> Spoil:
    return lambda draft: draft.change_all({key.replace("__", "."): value for key, value in changes.items()})


def half_trained(draft: Draft) -> None:
    draft.change(NATIVE, {"curve": draft.records[NATIVE].curve[:2], "accuracy.epoch": 2})


def validated(
    validation: tuple[float, ...], test: tuple[float, ...], *, scored: int, phases: tuple[int, ...] = ()
) -> Spoil:
    """Accuracies of each epoch of a cell for which images are held out, and the epoch chosen."""

    def spoil(draft: Draft) -> None:
        made = draft.records[NATIVE]
        numbers = phases or (1,) * len(made.curve)
        rows = tuple(
            msgspec.structs.replace(
                row, images=300, phase=phase, validation_accuracy=one, test_accuracy=other
            )
            for row, phase, one, other in zip(made.curve, numbers, validation, test, strict=True)
        )
        asked = tuple(
            msgspec.structs.replace(made.training.phases[0], epochs=numbers.count(phase))
            for phase in sorted(set(numbers))
        )
        draft.change(NATIVE, {
            "curve": rows, "accuracy.epoch": scored, "training.phases": asked,
            "training.train_images": 300, "training.validation_images": 100,
        })  # fmt: skip

    return spoil


def one_thread(draft: Draft) -> None:
    for cell_id in (NATIVE, NATIVE.replace("s1", "s0")):
        draft.change(cell_id, {"environment.threads": 1, "settings.threads": 1})


SPOILT = [Spoilt(*one) for one in (
    ("schema", write_file(f"records/{KERAS}.json", b'{"schema_version": 1'), "data was truncated; delete it"),
    ("schema", edit(KERAS, '"schema_version": 1', '"schema_version": 2'), r"Invalid enum value 2 .*; delete"),
    ("schema", edit(KERAS, '"train_loss":1', '"train_loss":null'), r"Expected `float`, got `null`.*curve"),
    ("schema", edit(KERAS, '"train_loss":1', '"train_loss":NaN'), "malformed.*delete it"),
    ("schema", edit(KERAS, '"train_loss":1', '"train_loss":1e999'), "out of range.*delete it"),
    ("schema", edit(KERAS, '"epoch":2,', '"epoch":2,"loss":7,'), r"no such field: \$\.curve\[1\]\.loss"),
    ("schema", edit(KERAS, '"status": "ok"', '"state": 1, "status": "ok"'), r"no such field: \$\.state"),
    ("schema", insert("plan.json", extra=1), r"plan\.json: no such field: \$\.extra: .*; take it from where"),
    ("schema", insert("images.json", extra=1), r"images\.json: no such field: \$\.extra: .*; delete it: the"),
    ("schema", write_file("plan.json", b"{}"), r"plan\.json: .*missing required field"),
    ("schema", write_file("images.json", b"{}"), r"images\.json: .*missing required field"),
    ("schema", lambda d: d.afterwards.append(
        lambda f: (f / f"records/{KERAS}.json").rename(f / "records/copy.json")
    ), rf"copy\.json: holds the record of {KERAS}"),
    ("schema", change(KERAS, cell__variant="tuned"), f"{KERAS}: its fields are those of keras-.*-tuned-s1;"),
    ("schema", change(KERAS, cell__precision="bfloat16"), "those of keras-.*-finetune-bfloat16-s1;"),
    ("schema", all_cells(cell__device="cuda:1"), f"{KERAS}: its fields are those of keras-.*-cuda1-s1;"),
    ("schema", change(KERAS, cell__profile="full"), "those of keras-.*-finetune-48px-s1;"),
    ("schema", change(NATIVE, training__image_size=64), "those of keras-.*-finetune-64px-s1;"),
    ("schema", change(NATIVE, cell__recipe="of-old"), "its fields are those of keras-of-old-s1;"),
    ("schema", change(KERAS, cell__profile="huge"), f"{KERAS}: no profile 'huge', and there are: smoke,"),
    ("schema", change(NATIVE, cell__backend="gluon", environment__packages=PACKAGES["gluon"]),
     "those of gluon-native-vgg16-finetune-s1;"),
    ("schema", change(NATIVE, cell__protocol="scratch"), f"{NATIVE}: protocol scratch, and .* is finetune;"),
    ("schema", change(NATIVE, cell__architecture="resnet18"), "resnet18, and its recipe's is vgg16"),
    ("schema", change(NATIVE, cell__track="wild"), "track wild, and its recipe's is native"),
    ("cells", unrecord(KERAS), f"{KERAS}: planned, and has no record; run it with --resume"),
    ("cells", unplan(KERAS), f"{KERAS}: not planned"),
    ("cells", change(KERAS, key="0" * 64), f"{KERAS}: made from another recipe"),
    ("cells", change(KERAS, key=None), f"{KERAS}: made from another recipe"),
    ("cells", delete_file("plan.json"), r"plan\.json: none: nobody can tell which cells were planned"),
    ("cells", fail(""), "all cells: failed: there is no result to judge; mend what made them fail"),
    ("cells", fail("keras"), "keras: all cells of keras failed.*; mend what made them fail"),
    ("seeds", remove(KERAS.replace("s1", "s0")), "without seed 0, and seed 1 is there; --seeds 2 --resume"),
    ("seeds", remove(KERAS), f"{MATCHED}: .* 2 seeds, keras-{MATCHED} has 1 seeds; --seeds 2"),
    ("seeds", remove(NATIVE), "native-finetune: .* 2 seeds, keras-native-vgg16-finetune has 1 seeds"),
    ("seeds", change(NATIVE, cell__seed=0), "seed 0 several times", ("schema",)),
    ("seeds", copy_seed, "seeds 0 and 1 ended with the same weights"),
    ("code", change(KERAS, environment__code_sha256="e" * 64),
     f"mixed: .* have c{{12}}, {KERAS} has e{{12}};"),
    ("code", identify(code="e" * 64), "mixed: .* more have c{12}, the plan has e{12}"),
    ("data", all_cells(cell__data__sha256=""), "the data's hash is not known"),
    ("data", change(KERAS, cell__data__sha256="e" * 64), f"several hashes: .*{KERAS} has e{{12}}"),
    ("data", identify(data="e" * 64), "several hashes: .*the plan has e{12}"),
    ("data", manifest_of(sha256="e" * 64), r"several hashes: .*images\.json has e{12}"),
    ("data", lose_images, r'several images and classes: .*images\.json has \[400,199,"hotdog"'),
    ("data", manifest_of(classes=("cat", "dog")), r'images\.json has \[400,200,"cat","dog"\]'),
    ("data", lose_labels, r"images\.json: test: not one class for each image"),
    ("data", delete_file("images.json"), r"images\.json: none: nobody can tell which images"),
    ("weights", of_backend("keras", "cell.weights.sha256", "0" * 64),
     "matched resnet18: different weights to start from: .*have eeeeeeeeeeee.*have 000000000000"),
    ("weights", frozen("matched-resnet18-frozen", sha256="0" * 64),
     "matched resnet18: different weights .*-finetune-s0.* have e{12}, .*-frozen-s0 .*have 0{12}; give all"),
    ("weights", frozen("matched-resnet18-frozen", name="none", sha256=None),
     "matched resnet18: different weights .* have e{12}, .*-frozen-s0 .*have null; give all"),
    ("weights", all_cells(cell__weights__sha256=None), r"hash of its weights \(source\) is not known"),
    ("weights", all_cells(cell__weights__sha256="unknown"), r"hash of its weights \(source\) is not known"),
    ("weights", change(KERAS, cell__weights__initial_sha256="0" * 64),
     f"{MATCHED}, seed 1.*different values before the first step: .*{KERAS} has 000000000000"),
    ("weights", all_cells(cell__weights__initial_sha256=None), "hash of its values before the first step"),
    ("batches", change(KERAS, batches_sha256__1="0" * 64),
     f"{MATCHED}, seed 1.*different batches: epoch 2: .*{KERAS} has 000000000000"),
    ("batches", change(TUNED, batches_sha256__0="0" * 64), f"epoch 1: .*{TUNED} has 000000000000"),
    ("batches", change(KERAS, batches_sha256=()), "0 hashes of batches for 3 epochs on images"),
    ("gate", change(KERAS, gate=None), f"{KERAS}: no gate: nobody knows"),
    ("gate", change(KERAS, gate__passed=False, gate__failures=("a gradient is off",)),
     r"the gate was not passed \(a gradient is off\); mend the backend"),
    ("settings", of_backend("keras", "settings.batch_norm.epsilon", [1e-3]),
     rf"{MATCHED}: batch_norm\.epsilon: .* keras-{MATCHED}-s0 has \[0\.001\]; make the backends equal"),
    ("settings", without_setting, r"batch_norm\.layers: .* has no such setting"),
    ("settings", of_backend("gluon", "settings.optimizer.momentum", 0.8), r"optimizer\.momentum"),
    ("settings", of_backend("pytorch", "settings.tuning", ["channels-last"]),
     rf'{MATCHED}: tuning: .* pytorch-{MATCHED}-s0 has \["channels-last"\]; make the backends equal'),
    ("settings", change(TUNED, settings__tf32=True),
     r"gluon-\S+-tuned: tf32: .*-tuned-s0 has true.*its seeds were not run under the same conditions"),
    ("settings", change(NATIVE, settings__layout="NCHW"),
     r"keras-native-vgg16-finetune: layout: .*its seeds were not run under the same conditions"),
    ("settings", change(KERAS, settings={}), f"{KERAS}: no settings in its record"),
    ("accuracy", change(KERAS, accuracy__test=0.7500001, curve__2__test_accuracy=0.7500001),
     f"{KERAS}: accuracy 0.7500001 is not the mean of its scores"),
    ("accuracy", change(KERAS, accuracy__correct=(1, 1, 1, 0) * 49),
     "196 scores and 200 images, of 200 test images"),
    ("accuracy", change(KERAS, accuracy__correct=(1, 1, 1, 0) * 49, accuracy__images=196),
     "196 scores and 196 images, of 200 test images"),
    ("accuracy", change(KERAS, accuracy__correct=(2, 1, 0, 0) * 50), "scores other than 0 and 1"),
    ("accuracy", change(KERAS, accuracy__correct=()), "is not the mean of its scores"),
    ("accuracy", change(KERAS, accuracy=None), f"{KERAS}: no accuracy"),
    ("accuracy", all_cells(accuracy__test=1.5, cell__data__name="photos"),
     f"{KERAS}: accuracy 1.5 is not the mean of its scores", ("leak",)),
    ("accuracy", change(KERAS, curve__2__test_accuracy=0.5), "accuracy 0.75, and 0.5 in epoch 3"),
    ("accuracy", change(KERAS, accuracy__epoch=None), "no epoch None"),
    ("numbers", change(KERAS, curve__1__train_accuracy=1.5), r"curve\.train_accuracy is 1\.5"),
    ("numbers", change(KERAS, throughput__train_images_per_second=0.0), "train_images_per_second is 0"),
    ("numbers", change(KERAS, throughput__step_seconds__3=-0.1), r"throughput\.step_seconds is -0\.1"),
    ("numbers", change(KERAS, curve__0__input_wait_seconds=1e9, curve__0__train_seconds=0.0),
     rf"{KERAS}: epoch 1 waited 1e\+09 s for its input, and took 0 s in all"),
    ("numbers", change(KERAS, curve__1__input_wait_seconds=4.01),
     r"epoch 2 waited 4\.01 s .* took 4 s in all"),
    ("numbers", change(KERAS, curve__1__input_wait_seconds=-0.1), r"input_wait_seconds is -0\.1"),
    ("numbers", change(KERAS, curve__1__input_wait_seconds=0.0, curve__1__train_seconds=0.0),
     r"curve\.train_seconds is 0\.0"),
    ("numbers", change(KERAS, curve__1__eval_seconds=-0.1), r"eval_seconds is -0\.1"),
    ("curve", half_trained, f"{NATIVE}: 2 of 3 epochs in phase 1"),
    ("curve", change(NATIVE, curve__1__epoch=1), "missing, double or out of order"),
    ("curve", change(NATIVE, curve__2__phase=2), "epochs of a phase that the recipe does not have"),
    ("curve", change(NATIVE, curve__0__phase=2), "phases of its learning curve are out of order"),
    ("curve", change(KERAS, curve__1__images=399), "epoch 2 saw 399 of 400 training images"),
    ("curve", change(KERAS, training__validation_images=100, curve__0__validation_accuracy=0.5,
                     curve__1__validation_accuracy=0.5, curve__2__validation_accuracy=0.5),
     "400 images to train on and 100 to choose by, of 400"),
    ("curve", change(KERAS, accuracy__epoch=2), "scored after epoch 2 of 3, and nothing was held out"),
    ("curve", validated((0.9, 0.5, 0.4), (0.5, 0.6, 0.75), scored=3),
     f"{NATIVE}: scored after epoch 3, and the validation images choose epoch 1"),
    ("curve", validated((0.5, 0.9, 0.9), (0.5, 0.75, 0.75), scored=3), "validation images choose epoch 2"),
    ("curve", validated((0.9, 0.5, 0.6), (0.75, 0.5, 0.5), scored=1, phases=(1, 2, 2)),
     "scored after epoch 1, and the validation images choose epoch 3"),
    ("curve", change(NATIVE, training=None), f"{NATIVE}: no hyper-parameters in its record"),
    ("curve", change(NATIVE, training__phases=()), "does not say how many epochs were asked for"),
    ("steady", change(KERAS, throughput__steady=False), f"{KERAS}: training steps did not become steady"),
    ("steady", change(KERAS, throughput__inference_steady=False), "inference did not become steady"),
    ("steady", change(KERAS, throughput__conditions=NOISY), r"disturbed while it was timed \(training:"),
    ("steady", change(KERAS, throughput__inference_conditions=NOISY), r"timed \(inference: other"),
    ("steady", change(KERAS, throughput__epoch_conditions=NOISY), r"timed \(whole epochs: other"),
    ("steady", change(KERAS, throughput__inference_conditions=None),
     r"nobody watched the machine while it was timed \(inference\)"),
    ("steady", change(KERAS, throughput=None), "not timed, and others that it is compared with are"),
    ("peak", change(KERAS, throughput__achieved_flops=2e11), "training at 200 GFLOP/s, .* reach 160; see"),
    ("peak", change(KERAS, throughput__inference_flops_per_image=1e9), "inference at 512 GFLOP/s"),
    ("peak", change(KERAS, throughput__gemm_peak_flops=None), "or their peak were not measured"),
    ("peak", quick_on_gpu(7.2e11), "training at 720 GFLOP/s, .* reach 160; see"),
    ("environment", change(KERAS, environment=None), f"{KERAS}: no environment in its record"),
    ("environment", change(KERAS, environment__cpu="Another"), f"cpu: .* {KERAS} has Another"),
    ("environment", one_thread, "threads: .* have 2, keras-native.* and .* have 1; run all"),
    ("environment", change(KERAS, environment__threads=1), "1 threads were asked for and 2 in force"),
    ("environment", change(KERAS, environment__cpu=""), f"{KERAS}: its machine is not recorded"),
    ("environment", change(KERAS, environment__gpu="H100"), f"gpu: .* have null, {KERAS} has H100"),
    ("environment", on_gpu("keras"), r"device: .* have cpu, keras-\S+-cuda-s0, .* have cuda; keep"),
    ("environment", change(KERAS, environment__packages={"numpy": "2.0"}), "the version of Keras"),
    ("environment", change(KERAS, environment__git_commit=None), f"{KERAS}: no commit"),
    ("environment", change(KERAS, environment__git_dirty=True),
     "not that of commit 0123456789ab, but changed; commit the changes"),
    ("leak", lambda draft: draft.share(3), r"3 of 200 .*\(3 exactly; hotdog/0.jpg is hotdog/0.jpg\)"),
    ("leak", lambda draft: draft.share(3, exact=False), r"3 saved or cut otherwise"),
)]  # fmt: skip
