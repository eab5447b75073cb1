"""`python -m gm_helpers …`: data, device, train, evaluate, figures, notebooks and assignments from the command line."""

import argparse
import io
import json
import os
import signal
import sys
import time
from pathlib import Path

from gm_helpers import checkpoint, data, device, files, recipes, train
from gm_helpers.files import CourseError, UsageError


def main() -> int:
    """Run one command: 0 if it succeeded, 2 if it was asked wrongly, 1 if it failed, with one sentence of why."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without a minus or an é shows "?"
    options = _parser().parse_args(_joined(sys.argv[1:]))
    try:
        if os.environ.get("GM_DATA"):  # for kernels, which work in another folder, too
            os.environ["GM_DATA"] = str(data.folder())
        options.command(options)
    except UsageError as error:
        print(f"gm_helpers: {error}", file=sys.stderr)
        return 2
    except CourseError as error:
        print(f"gm_helpers: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"gm_helpers: {files.sentence(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _joined(words: list[str]) -> list[str]:
    """`-p NAME VALUE` as one word, -pNAME=VALUE, because argparse takes a value such as -out for an option."""
    joined = []
    while words:
        word, *words = words
        if word == "-p" and len(words) > 1 and "=" not in words[0]:
            name, value, *words = words
            word = f"-p{name}={value}"
        joined.append(word)
    return joined


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError("give a name and a value, such as -p seed 3 or --set latent_dim=40")
    return name, value


def _parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m gm_helpers", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    add = commands.add_parser("data", help="fetch and verify a data set")
    add.add_argument("--dataset", default="mnist", choices=data.DATASETS)
    add.set_defaults(command=_data)

    add = commands.add_parser("device", help="say which device will be used")
    add.add_argument("name", nargs="?", default="auto", help=", ".join(device.DEVICES))
    add.set_defaults(command=lambda options: print(device.choose_device(options.name)))

    add = commands.add_parser("train", help="train a model, measure it and save its weights")
    add.add_argument("names", nargs="*", metavar="NAME", help=", ".join(recipes.RECIPES))
    add.add_argument(
        "--shipped", action="store_true", help=f"all that come with the course: {', '.join(recipes.SHIPPED)}"
    )
    add.add_argument("--profile", default="full", choices=recipes.PROFILES)
    add.add_argument("--dataset", default="mnist", choices=data.DATASETS)
    add.add_argument("--seed", type=int, default=0)
    add.add_argument("--device", default="auto")
    add.add_argument(
        "--set",
        type=_pair,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another value for an argument of the model, such as latent_dim=40, or a field of its schedule",
    )
    add.add_argument("--out", default="runs", help="folder for the weights (default: %(default)s)")
    add.add_argument("--unmeasured", action="store_true", help="leave the measuring to evaluate")
    add.set_defaults(command=_train)

    add = commands.add_parser("figures", help="run notebooks by papermill and keep the figures that they draw")
    add.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="such as 1_vae; all where none is named")
    add.add_argument("--profile", help=", ".join(recipes.PROFILES))
    add.add_argument(
        "-p", type=_pair, action="append", default=[], metavar="NAME VALUE", help="any other parameter, also NAME=VALUE"
    )
    add.set_defaults(command=_figures)

    add = commands.add_parser("notebooks", help="execute MyST sources and write the notebooks that students open")
    add.add_argument("sources", nargs="+", type=Path, metavar="SOURCE")
    add.set_defaults(command=_notebooks)

    add = commands.add_parser("assignments", help="write the exercises for nbgrader and otter-grader")
    add.add_argument("--out", default="build", help="folder for them (default: %(default)s)")
    add.set_defaults(command=_assignments)

    add = commands.add_parser("evaluate", help="measure a shipped or saved model on validation and test images")
    add.add_argument("name", help=f"{', '.join(recipes.RECIPES)} or a .safetensors file")
    add.add_argument("--dataset", default="mnist", choices=data.DATASETS)
    add.add_argument("--device", default="auto")
    add.add_argument("--samples", type=int, help="of a bound or a GAN, where it is to be another number than usual")
    add.set_defaults(command=_evaluate)
    return top


def _data(options: argparse.Namespace) -> None:
    name = data.choose(options.dataset)
    sizes = ", ".join(f"{split} {len(data.load(name, split).labels):,}" for split in data.SPLITS)
    where = f"in {data.folder()}, every file verified" if name == "mnist" else "from scikit-learn"
    print(f"{name} {where}: {sizes} images")


def _train(options: argparse.Namespace) -> None:
    out = files.folder(options.out)
    rest = options.profile, options.dataset, options.seed, options.device, out
    names = list(dict.fromkeys([*options.names, *(recipes.SHIPPED if options.shipped else [])]))
    if not names:
        raise UsageError(f"nothing to train: name some of {', '.join(recipes.RECIPES)}, or say --shipped")
    changes = {name: recipes.parse(name, dict(options.set)) for name in names}
    for name in names:
        recipes.check(name, *rest[:-1], changes[name])
    for name in names:  # all of them before the first hour
        recipes.rehearse(name, *rest, changes[name])
    for name in names:
        metadata = recipes.ship(name, *rest, changes[name], measured=not options.unmeasured)
        what = "not measured," if options.unmeasured else json.dumps(metadata["metrics"])
        print(f"{out / name}.safetensors: {what} after {metadata['seconds']} s")


def _evaluate(options: argparse.Namespace) -> None:
    model = recipes.pretrained(options.name, options.device)
    name = checkpoint.load(recipes.weights_file(options.name))[1]["name"]
    print(json.dumps(recipes.evaluate(name, model, options.dataset, options.samples), indent=1))


def _figures(options: argparse.Namespace) -> None:
    from gm_helpers import batch  # papermill and jupytext, which a machine that only trains need not have

    texts = dict(options.p) | ({} if options.profile is None else {"profile": options.profile})
    paths = [batch.find(name) for name in dict.fromkeys(options.notebooks or batch.course())]
    if twice := [path for path in paths if [own.stem for own in paths].count(path.stem) > 1]:
        names = " and ".join(map(str, twice))
        raise UsageError(f"{names} would replace each other's figures: run them one by one, with a figure_dir for each")
    plans = [(path, batch.check(path, batch.parse(path, texts))) for path in paths]
    for path, parameters in plans:
        data.choose(parameters["dataset"])  # says on the terminal, too, when it has to be digits
        start = time.monotonic()
        drawn = batch.run(path, parameters)
        where = f" in {drawn[0].parent}" if drawn else ""
        print(f"{path.stem}: {len(drawn)} figures{where}, {time.monotonic() - start:.0f} s")


def _notebooks(options: argparse.Namespace) -> None:
    from gm_helpers import batch

    for source in options.sources:
        for path in batch.write(source):
            print(f"{path} written")


def _assignments(options: argparse.Namespace) -> None:
    from gm_helpers import batch

    for path in batch.assignments(files.folder(options.out)):
        print(f"{path} written")


if __name__ == "__main__":
    for number in (signal.SIGTERM, train.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup wants it
            signal.signal(number, lambda own, _: sys.exit(128 + own))  # by way of all that cleans up
    sys.exit(main())
