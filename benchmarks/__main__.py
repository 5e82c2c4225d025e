"""`python -m benchmarks COMMAND`: everything that is no benchmark itself."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import msgspec
import psutil
import typer
from rich.console import Console
from rich.table import Table

import backends
from backends import architectures, weights
from backends.architectures import ARCHITECTURES
from backends.base import BackendInfo, BenchmarkError, Normalization, UsageError, WeightsError
from benchmarks.harness import advise as advice
from benchmarks.harness import convert, data, plan, record, runner, source
from benchmarks.harness.cache import cache_folder, write_whole
from benchmarks.harness.environment import PROJECT
from benchmarks.harness.messages import AdviseJob, RangeTestJob
from benchmarks.harness.progress import JobProgress
from benchmarks.harness.recipe import PROFILES, REFERENCE_BACKEND, all_recipes, profile_of
from benchmarks.harness.session import Session, run_folder

app = typer.Typer(
    name="python -m benchmarks",
    help="The same transfer-learning protocol in PyTorch, MXNet Gluon and Keras: same accuracy?"
    " And at what cost?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
data_app = typer.Typer(help="Look at a data set, or check it.", no_args_is_help=True)
app.add_typer(data_app, name="data")
weights_app = typer.Typer(
    help="Look at a checkpoint, or take it from one framework to another.", no_args_is_help=True
)
app.add_typer(weights_app, name="weights")

out, err = Console(), Console(stderr=True)

BackendOption = Annotated[
    list[str] | None, typer.Option("--backend", help="One backend; may be given again. Default: all.")
]
DATA_HELP = "sketch, sketch-five, hotdog, or the path of a folder or zip."
DataArgument = Annotated[str, typer.Argument(help=DATA_HELP)]
START_HELP = "source, imagenet, or a .safetensors file. Default: the recipe's own."
ProfileOption = Annotated[
    str, typer.Option(help=f"{', '.join(PROFILES)}: decides how much of the data is used.")
]


@app.command("list")
def list_recipes(
    as_json: Annotated[
        bool, typer.Option("--json", help="For a machine: everything about every recipe.")
    ] = False,
) -> None:
    """Every recipe: its protocol, backend, architecture, track, and the seed document it comes from."""
    recipes = all_recipes()
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(recipes)).decode() + "\n")
        return
    shown = Table(box=None, pad_edge=False)
    for heading, names in (
        ("recipe", [recipe.id for recipe in recipes]),
        ("backend", [recipe.backend or "all" for recipe in recipes]),
        ("seed", [recipe.seed_document for recipe in recipes]),
    ):
        shown.add_column(heading, no_wrap=True, min_width=max(map(len, names)))
    shown.add_column("what it does")
    for recipe in recipes:
        shown.add_row(recipe.id, recipe.backend or "all", recipe.seed_document, recipe.summary)
    out.print(shown)


@data_app.command("show")
def data_show(
    spec: Annotated[
        str, typer.Argument(help="sketch, sketch-five, hotdog, or the path of a folder or zip.")
    ] = "sketch",
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture to write.")] = Path("data.png"),
    profile: ProfileOption = "smoke",
) -> None:
    """Draw the first eight and the last eight training images as one picture, and print the counts.

    Examples: `python -m benchmarks data show`, `python -m benchmarks data show hotdog.zip -o hotdog.png`
    """
    images = _open(spec, profile)
    data.contact_sheet(images.train).save(output)
    _print_data(images)
    out.print(f"{output}: the first eight {images.classes[0]} and the last eight {images.classes[-1]}")


@data_app.command("check")
def data_check(
    spec: Annotated[
        str, typer.Argument(help="sketch, sketch-five, hotdog, or the path of a folder or zip.")
    ] = "sketch",
    profile: ProfileOption = "full",
) -> None:
    """Decode every image, and print the counts, the order of the classes and the hash."""
    _print_data(_open(spec, profile))


ArchitectureOption = Annotated[
    str | None, typer.Option("--arch", help=f"{', '.join(ARCHITECTURES)}. Default: what fits.")
]


@weights_app.command("show")
def weights_show(
    path: Annotated[Path, typer.Argument(help="A .safetensors, .pth, .params, .h5 or .keras file.")],
    arch: ArchitectureOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="For a machine.")] = False,
) -> None:
    """Print what a checkpoint holds: its architecture, origin, hash and tensors, under neutral names.

    Example: `python -m benchmarks weights show net.params --arch resnet18_v2`
    """
    with tempfile.TemporaryDirectory() as folder, err.status(f"reading {path}"):
        neutral = path
        if convert.backend_of(path) is not None:
            neutral = Path(folder, "neutral.safetensors")
            convert.read_any(path, neutral, architecture=arch)
        checkpoint = weights.read(neutral)
    try:
        spec = weights.spec_of(checkpoint, arch)
        network = (
            f"{spec.architecture}, {spec.classes} classes, head {spec.head}, inputs {spec.normalization}"
        )
    except WeightsError as error:  # a part of a network is worth looking at too
        network = f"no whole network: {error}"
    parameters = sum(
        tensor.size for name, tensor in checkpoint.tensors.items() if architectures.is_parameter(name)
    )
    facts = {
        "file": str(path),
        "network": network,
        "origin": checkpoint.origin.origin or "not said",
        "holds": f"{len(checkpoint.tensors)} tensors, {parameters:,} parameters",
        "sha256": weights.sha256_of(path.read_bytes()),
    }
    if as_json:
        shapes = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}
        text = msgspec.json.encode({**facts, "tensors": shapes})
        sys.stdout.write(msgspec.json.format(text).decode() + "\n")
        return
    table = Table("tensor", "shape", "smallest", "mean", "largest", box=None)
    for name, tensor in checkpoint.tensors.items():
        figures = (f"{value:.4g}" for value in (tensor.min(), tensor.mean(), tensor.max()))
        table.add_row(name, " x ".join(map(str, tensor.shape)), *figures)
    out.print(table)
    for name, fact in facts.items():
        out.print(f"{name:8} {fact}", highlight=False, markup=False, soft_wrap=True)


@weights_app.command("convert")
def weights_convert(
    source: Annotated[Path, typer.Argument(help="A .safetensors, .pth, .params, .h5 or .keras file.")],
    target: Annotated[Path, typer.Argument(help="The file to write; its suffix names the format.")],
    arch: ArchitectureOption = None,
    normalization: Annotated[
        Normalization | None,
        typer.Option(help="What the weights expect of their inputs. Default: what is usual for them."),
    ] = None,
    verify: Annotated[
        bool, typer.Option(help="Read the target back, compare every value, and run both networks.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace a target that is there.")] = False,
) -> None:
    """Take a checkpoint from one framework to another: running statistics included, verified by running both
    sides, each in its own environment.

    .pth .pt: PyTorch state dictionary. .params: Gluon's save_parameters. .h5 .keras: Keras. .safetensors:
    neutral.

    Examples: `python -m benchmarks weights convert net.params net.pth --arch resnet18_v2`,
    `python -m benchmarks weights convert net.pth net.h5`
    """
    with err.status("converting") as status:
        done = convert.convert(
            source,
            target,
            architecture=arch,
            normalization=normalization,
            verify=verify,
            force=force,
            say=status.update,
        )
    spec = done.spec
    said = f"{target}: {spec.architecture}, {spec.classes} classes, {done.tensors} tensors"
    if done.verified:
        said += "; read back, every value is the same"
    if done.logit_error is not None:
        said += f"; both networks ran, their logits agree to {done.logit_error:.0e}"
    out.print(said, highlight=False, markup=False, soft_wrap=True)


@app.command()
def pretrain(
    backend: BackendOption = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1")] = "cpu",
) -> None:
    """Train network A on the drawn source set, for `--weights source`; what the cache has is not trained
    again."""
    cards = _cards(backend)
    for recipe in all_recipes():
        if recipe.protocol == "pretrain" and recipe.backend in {card.name for card in cards}:
            start = source.network_a(recipe, device=device, console=err)
            out.print(
                f"{recipe.backend} {recipe.architecture}: {start.path} (sha256 {start.sha256})",
                soft_wrap=True,
            )


@app.command("range-test")
def range_test(
    recipe: Annotated[str, typer.Option(help="Id of a recipe; `list` has them.")],
    backend: Annotated[str, typer.Option(help="Which backend.")] = REFERENCE_BACKEND,
    data_: Annotated[str, typer.Option("--data", help=DATA_HELP)] = "sketch",
    weights_: Annotated[str | None, typer.Option("--weights", help=START_HELP)] = None,
    profile: ProfileOption = "smoke",
    image_size: Annotated[int | None, typer.Option(help="Pixels, instead of the profile's.")] = None,
    lowest: Annotated[float, typer.Option(help="Rate of the first step.")] = 1e-6,
    highest: Annotated[float, typer.Option(help="Rate of the last step.")] = 10.0,
    steps: Annotated[int, typer.Option(help="How many steps, unless the loss explodes before.")] = 100,
    run: Annotated[str, typer.Option(help="The run whose folder gets the plot and the figures.")] = "local",
) -> None:
    """Learning-rate range test: raise the rate step by step, plot the loss, suggest a rate.

    Example: `python -m benchmarks range-test --recipe 003-vgg16 --data hotdog.zip --weights vgg16.safetensors
    --profile cpu --image-size 64`
    """
    if not 0 < lowest < highest or steps < 3:
        raise UsageError(f"a range from {lowest:g} to {highest:g} in {steps} steps is none")
    _require_report_libraries()
    from benchmarks.report import plots

    session, cell = _one_cell(recipe, backend, data_, weights_, profile, image_size=image_size, run=run)
    threads = runner.threads()
    job = RangeTestJob(
        cell=cell,
        data=session.data,
        weights=session.weights_for(cell),
        threads=threads,
        input_workers=runner.input_workers(cell.device, threads),
        lowest=lowest,
        highest=highest,
        steps=steps,
    )
    log = session.folder / "logs" / f"range-test-{cell.id}.log"
    with JobProgress(f"range test of {cell.id}", err) as shown:
        result = runner.range_test(job, log=log, on_event=shown.on_event)
    figures = session.folder / "range-tests" / f"{cell.id}.json"
    plot = session.folder / "plots" / f"range-test-{cell.id}.svg"
    for path, content in ((figures, record.to_json(result)), (plot, plots.range_test(result))):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    said = "no rate made the loss fall; give a lower --lowest, or more --steps"
    if result.suggestion is not None:
        said = f"suggested learning rate: {result.suggestion:.2g}, where the loss falls most steeply"
    out.print(
        f"{len(result.rates)} steps; smoothed loss {result.smoothed[0]:.3f}, at its lowest"
        f" {min(result.smoothed):.3f}\n{said}\n{plot}\n{figures}",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def advise(
    data_: Annotated[str, typer.Option("--data", help=DATA_HELP)] = "sketch",
    weights_: Annotated[str | None, typer.Option("--weights", help=START_HELP)] = None,
    arch: Annotated[str, typer.Option(help=", ".join(ARCHITECTURES))] = plan.MATCHED_ARCHITECTURE,
    backend: Annotated[str, typer.Option(help="Which backend measures.")] = REFERENCE_BACKEND,
    profile: Annotated[str, typer.Option(help="Decides the image size, and how many images.")] = "cpu",
    image_size: Annotated[int | None, typer.Option(help="Pixels, instead of the profile's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For a machine.")] = False,
) -> None:
    """Which protocol to try first on a data set, and the evidence: how much data there is, and how far it is
    from what the weights were trained on.

    Examples: `python -m benchmarks advise --data hotdog.zip`, `python -m benchmarks advise --data sketch`
    """
    session, cell = _one_cell(
        f"matched-{arch}-frozen", backend, data_, weights_, profile, image_size=image_size, run="local"
    )
    threads = runner.threads()
    job = AdviseJob(
        cell=cell,
        data=session.data,
        weights=session.weights_for(cell),
        threads=threads,
        input_workers=runner.input_workers(cell.device, threads),
    )
    with tempfile.TemporaryDirectory() as logs, JobProgress("advise", err) as shown:
        evidence = runner.advise(job, log=Path(logs) / "advise.log", on_event=shown.on_event)
    found = advice.advise(evidence)
    if as_json:
        answer = {"advice": found, "evidence": evidence}
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(answer)).decode() + "\n")
        return
    out.print(advice.explained(evidence, found), highlight=False, markup=False, soft_wrap=True)
    command = f"pytest benchmarks --track matched --arch {arch} --protocol {found.protocol} --data {data_}"
    if found.protocol == "classifier":
        command = f"pytest benchmarks --recipe '003-logistic*,003-svm*' --arch {arch} --data {data_}"
    if weights_ is not None:
        command += f" --weights {weights_}"
    out.print(f"\nnext   {command} --profile {profile} --run advised", highlight=False, soft_wrap=True)


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def report(
    context: typer.Context,
    run: Annotated[str | None, typer.Option("--run", help="Name or path of the run. Default: local.")] = None,
) -> None:
    """Write `report.md` from the records of a run, and merge the environments' JSON files into
    `benchmark.json`.

    RUN may also be given as the only argument. The options of `pytest benchmarks` are taken and passed over,
    so that `tox run -m bench -- OPTIONS` can hand the same ones to every step.
    """
    name = run or _run_argument(context.args) or "local"
    folder = run_folder(name)
    if not (folder / "records").is_dir():
        raise UsageError(
            f"run {name}: {folder} has no records; `tox run -m bench` or `pytest benchmarks` makes some"
        )
    _require_report_libraries()
    from benchmarks.report import markdown, merge

    records = record.read_all(folder / "records")
    text = markdown.report(records, run=folder.name)
    write_whole(folder / "report.md", text.encode())
    merge.merge(folder)
    out.print(text, markup=False, highlight=False, soft_wrap=True)
    out.print(f"{folder / 'report.md'}", soft_wrap=True)


@app.command()
def doctor() -> None:
    """What is installed per backend, on which devices; what is cached; and what to type next."""
    found = Table("backend", "framework", "version", "devices", "Python", box=None)
    ready = []
    for card in backends.known().values():
        python = runner.interpreter_of(card)
        if python is None:
            found.add_row(card.name, card.title, "-", "-", f"none: tox run -e bench-{card.name} --notest")
            continue
        try:
            with tempfile.TemporaryDirectory() as logs:
                answer = runner.probe(card, log=Path(logs) / "probe.log")
            found.add_row(card.name, card.title, answer.version, ", ".join(answer.devices), str(python))
            ready.append(card.name)
        except BenchmarkError as error:
            found.add_row(card.name, card.title, "broken", "-", str(error))
    out.print(found)
    cache = cache_folder()
    disk = shutil.disk_usage(cache if cache.exists() else Path.home()).free
    out.print(
        f"\ncache    {cache}"
        f"\ndisk     {disk / 2**30:.0f} GiB free"
        f"\nmemory   {psutil.virtual_memory().available / 2**30:.1f} GiB free"
        f"\ncores    {runner.threads()} physical, one thread each",
        highlight=False,
    )
    for path in sorted((cache / "weights").glob("*.safetensors")):
        out.print(f"weights  {path.name}  {path.stat().st_size / 2**20:.0f} MiB", highlight=False)
    out.print("\nnext     " + ("pytest benchmarks, or tox run -m bench" if ready else "tox run -m bench"))


@app.command()
def readme(
    path: Annotated[Path, typer.Argument(help="The Markdown file.")] = Path("README.md"),
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit 1 if stale.")] = False,
) -> None:
    """Regenerate the tables of README.md from the committed records that they came from."""
    _require_report_libraries()
    from benchmarks.report.readme import regenerate

    before = path.read_text()
    after = regenerate(before, PROJECT)
    if check and after != before:
        err.print(f"{path}: a table is stale; run `python -m benchmarks readme {path}`")
        raise typer.Exit(1)
    if not check:
        write_whole(path, after.encode())


@app.command()
def schema() -> None:
    """Print the JSON Schema of a record."""
    sys.stdout.write(record.json_schema().decode())


# --- How ------------------------------------------------------------------------------------------


def _cards(names: list[str] | None) -> tuple[BackendInfo, ...]:
    if names:
        return tuple(backends.resolve(name) for name in names)
    cards = runner.available()
    if not cards:
        raise UsageError(
            "no backend is installed; `tox run -e bench-pytorch --notest` makes an environment for one"
        )
    return cards


def _one_cell(
    recipe: str,
    backend: str,
    data_: str,
    start: str | None,
    profile: str,
    *,
    image_size: int | None,
    run: str,
) -> tuple[Session, plan.Cell]:
    """A cell that is prepared to be looked at, and not run for a record."""
    options = plan.parse(
        {
            "recipe": [recipe],
            "backend": [backend],
            "data": data_,
            "weights": start,
            "profile": profile,
            "image_size": image_size,
            "run": run,
        }
    )
    cells = plan.plan(options, runner.available())
    if len(cells) != 1:
        raise UsageError(f"--recipe {recipe}: one recipe at a time")
    return Session(options, cells, err, keeps_records=False), cells[0]


def _open(spec: str, profile: str) -> data.DataSet:
    with JobProgress("data", err) as shown:
        return data.open_data(spec, profile_of(profile), shown.images)


def _print_data(images: data.DataSet) -> None:
    out.print(f"{images.name}  sha256 {images.sha256}", soft_wrap=True, highlight=False)
    for name, split in (("train", images.train), ("test", images.test)):
        counts = ", ".join(
            f"{split.labels.count(label)} {cls} ({label})" for label, cls in enumerate(split.classes)
        )
        out.print(f"{name:5}  {len(split.files)} images: {counts}", highlight=False)


def _require_report_libraries() -> None:
    """Raise UsageError where the report's libraries are missing, as in the frameworks' environments."""
    if importlib.util.find_spec("scipy") is None:
        raise UsageError(
            "the report's libraries are not installed here; `pip install '.[report]'` installs them"
        )


def _run_argument(arguments: list[str]) -> str | None:
    """The run among arguments that may hold `pytest benchmarks`' own options.

    Raises:
        UsageError: an option that no command has, or two runs.
    """
    flags = {flag.name: flag for flag in plan.FLAGS}
    names = []
    rest = iter(arguments)
    for word in rest:
        flag = flags.get(word.split("=")[0])
        if flag is None and word.startswith("-"):
            raise UsageError(f"report: no such option {word}; see `python -m benchmarks report --help`")
        if flag is None:
            names.append(word)
        elif not flag.switch and "=" not in word:
            next(rest, None)
    if len(names) > 1:
        raise UsageError(f"report: one run at a time, not {', '.join(names)}")
    return names[0] if names else None


def main() -> None:
    """Run a command; an error of ours is one line and exit code 2, Ctrl-C is exit code 130."""
    try:
        app()
    except BenchmarkError as error:
        err.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        err.print("stopped; finished records are kept")
        sys.exit(130)


if __name__ == "__main__":
    main()
