"""`python -m gm_helpers …`: data, device, train, evaluate, figures and notebooks from the command line."""

import argparse
import json
import sys
import time
from pathlib import Path

from gm_helpers import checkpoint, data, recipes, train


def main() -> int:
    """Run one command: 0 if it succeeded, 2 if it was asked wrongly, 1 if it failed, with one sentence of why."""
    options = _parser().parse_args()
    try:
        options.command(options)
    except ValueError as error:
        print(f"gm_helpers: {error}", file=sys.stderr)
        return 2
    except (data.CourseError, OSError) as error:
        print(f"gm_helpers: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m gm_helpers", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    add = commands.add_parser("data", help="fetch and verify a data set")
    add.add_argument("--dataset", default="mnist", choices=data.DATASETS)
    add.set_defaults(command=_data)

    add = commands.add_parser("device", help="say which device will be used")
    add.add_argument("name", nargs="?", default="auto", help=", ".join(train.DEVICES))
    add.set_defaults(command=lambda options: print(train.choose_device(options.name)))

    add = commands.add_parser("train", help="train a model, measure it and save its weights")
    add.add_argument("names", nargs="+", metavar="NAME", help=", ".join(recipes.RECIPES))
    add.add_argument("--profile", default="full", choices=recipes.PROFILES)
    add.add_argument("--dataset", default="mnist", choices=data.DATASETS)
    add.add_argument("--seed", type=int, default=0)
    add.add_argument("--device", default="auto")
    add.add_argument("--out", type=Path, default=Path("runs"), help="folder for the weights (default: %(default)s)")
    add.set_defaults(command=_train)

    add = commands.add_parser("figures", help="run notebooks by papermill and keep the figures that they draw")
    add.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="such as 1_vae; all where none is named")
    add.add_argument("--profile", help=", ".join(recipes.PROFILES))
    add.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="any other parameter")
    add.set_defaults(command=_figures)

    add = commands.add_parser("notebooks", help="execute MyST sources and write the notebooks that students open")
    add.add_argument("sources", nargs="+", type=Path, metavar="SOURCE")
    add.set_defaults(command=_notebooks)

    add = commands.add_parser("evaluate", help="measure a shipped or saved model on validation and test images")
    add.add_argument("name", help=f"{', '.join(recipes.RECIPES)} or a .safetensors file")
    add.add_argument("--dataset", default="mnist", choices=data.DATASETS)
    add.add_argument("--device", default="auto")
    add.set_defaults(command=_evaluate)
    return top


def _data(options: argparse.Namespace) -> None:
    name = data.choose(options.dataset)
    sizes = ", ".join(f"{split} {len(data.load(name, split).labels):,}" for split in data.SPLITS)
    where = f"in {data.folder()}, every file verified" if name == "mnist" else "from scikit-learn"
    print(f"{name} {where}: {sizes} images")


def _train(options: argparse.Namespace) -> None:
    for name in options.names:
        metadata = recipes.ship(name, options.profile, options.dataset, options.seed, options.device, options.out)
        print(f"{options.out / name}.safetensors: {json.dumps(metadata['metrics'])} after {metadata['seconds']} s")


def _evaluate(options: argparse.Namespace) -> None:
    model = recipes.pretrained(options.name, options.device)
    name = checkpoint.load(recipes.weights_file(options.name))[1]["name"]
    print(json.dumps(recipes.evaluate(name, model, options.dataset), indent=1))


def _figures(options: argparse.Namespace) -> None:
    from gm_helpers import batch  # papermill and jupytext, which a machine that only trains need not have

    texts = dict(options.p) | ({"profile": options.profile} if options.profile else {})
    paths = [batch.find(name) for name in options.notebooks or sorted(batch.NOTEBOOKS.glob("*.ipynb"))]
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
        print(f"{batch.write(source)} written")


if __name__ == "__main__":
    sys.exit(main())
