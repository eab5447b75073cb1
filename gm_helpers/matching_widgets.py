"""The widgets of flow matching: points of the plane in time, and digits by few steps and by many."""

from itertools import pairwise

import torch
from torch import Tensor

from gm_helpers import figures
from gm_helpers.explore import Drawing, choice, explore, slider
from gm_helpers.flow_matching import FlowMatching, carried, euler, exact_divergence
from gm_helpers.flows import standard_normal_log_prob
from gm_helpers.widgets import panels

STEPS = 50  # of the way from noise to data


def moons_in_time(model: FlowMatching, figure_dir: str = "", name: str = "3.beyond-h-widget") -> None:
    """A thousand points on their way from noise to data, coloured by log-density, and the velocity as arrows."""
    like = next(model.parameters())
    noise = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0)).to(like)
    places, log_p = [noise], [standard_normal_log_prob(noise)]
    for start, end in pairwise(torch.linspace(0, 1, STEPS + 1).tolist()):
        moved, integral = carried(model.velocity, places[-1], start, end, 1, exact_divergence)
        places.append(moved)
        log_p.append(log_p[-1] - integral)
    side = torch.linspace(-2.25, 2.25, 13)
    grid = torch.cartesian_prod(side, side).to(like)

    def draw(time: float) -> Drawing:
        own, density = places[round(time * STEPS)].cpu(), log_p[round(time * STEPS)].cpu()
        with torch.no_grad():
            v = model.velocity(grid, grid.new_full((len(grid),), time)).cpu()
        figure, [axis] = panels(1, 5.4, 4.6, top=0.4)
        points = axis.scatter(own[:, 0], own[:, 1], s=4, c=density, vmin=-6, vmax=1)
        figure.colorbar(points, label="$\\log p_\\tau$ (nats)", extend="min")
        axis.quiver(*grid.cpu().T, *v.T, angles="xy", scale_units="xy", scale=9, width=0.004, color="#777777")
        axis.set(xlim=(-2.6, 2.6), ylim=(-2.6, 2.6), aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
        axis.set_title(f"$\\tau$ = {time:.2f}")
        return figure, f"τ = {time:.2f}: mean of log p over the points {density.mean():.3f} nats"

    alt = (
        "A thousand points at time 0.8 on the way from noise to two moons: two bent clouds that still touch, densest "
        "along their middles; arrows lead towards the nearer moon."
    )
    controls = {"time": slider("time τ", 0.8, 0, 1, 1 / STEPS)}
    explore(name, alt, draw, controls, figure_dir, play="time")


def number_of_steps(
    model: FlowMatching, distances: dict[int, float], floor: float, figure_dir: str = "", count: int = 12
) -> None:
    """The same noise carried to digits by few of Euler's steps or by many, and the distances that were measured.

    distances: number of steps -> Fréchet distance; floor: that of real images.
    """
    like = next(model.parameters())
    noise = torch.randn(count, *model.shape, generator=torch.Generator().manual_seed(1)).to(like)
    made: dict[int, Tensor] = {}

    @torch.no_grad()
    def draw(steps: int) -> Drawing:
        if steps not in made:
            made[steps] = (euler(model.velocity, noise, 0.0, 1.0, steps).clamp(-1, 1) + 1).cpu() / 2
        figure, (left, right) = panels(2, 9, 3.4, top=0.4)
        rows = made[steps].view(3, -1, 28, 28).permute(0, 2, 1, 3).flatten(0, 1).flatten(1).numpy()
        left.imshow(rows, cmap="gray", vmin=0, vmax=1)
        title = f"{steps} steps" if steps > 1 else "1 step"
        left.set(xticks=[], yticks=[], title=title)
        right.loglog(distances.keys(), distances.values(), "o-")
        right.axhline(floor, color="black", linestyle=":", label="real images")
        if steps in distances:
            right.plot(steps, distances[steps], "o", markersize=11, color=figures.COLOURS[1])
        right.axvline(steps, color=figures.COLOURS[1], linewidth=0.8)
        right.set(xlabel="Euler's steps", ylabel="Fréchet distance")
        right.legend()
        told = f"{distances[steps]:.1f}" if steps in distances else "not measured"
        return figure, f"{title}: Fréchet distance {told}"

    alt = "Twelve digits drawn in five steps, and the Fréchet distance, which falls with the number of steps."
    steps = choice("steps", sorted({1, 3, 10, *distances}))
    steps.value = 5
    explore("3.beyond-h-steps", alt, draw, {"steps": steps}, figure_dir)
