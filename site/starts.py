"""Encode the test images at which the site's pad and sliders begin, because the site is made without any data.

.venv/bin/python site/starts.py    # writes site/starts.json, from MNIST and the shipped models
"""

import json
from pathlib import Path
from typing import Any

import torch

from gm_helpers import data, recipes
from gm_helpers.vae import kl_standard_normal

STARTS = Path(__file__).with_name("starts.json")
COUNTS = {"vae-2d": 1000, "vae-20d": 20}  # of test images: scattered over the plane, or to begin at one by one


@torch.no_grad()
def starts() -> dict[str, Any]:
    """For each model its codes of the first test images, their labels, and the mean KL of each latent over 1,000."""
    images = data.load("mnist", "test")
    x = data.binarize(images.pixels[:1000], torch.Generator().manual_seed(0))
    found = {}
    for name, count in COUNTS.items():
        mean, log_var = recipes.pretrained(name, "cpu").encode(x)
        kl = kl_standard_normal(mean.reshape(-1, 1), log_var.reshape(-1, 1)).view_as(mean).mean(0)
        numbers = {"codes": mean[:count], "kl": kl}
        found[name] = {own: part.double().round(decimals=2).tolist() for own, part in numbers.items()}
        found[name]["labels"] = images.labels[:count].tolist()
    return found


if __name__ == "__main__":
    STARTS.write_text(json.dumps(starts(), separators=(",", ":")) + "\n", encoding="utf-8")
