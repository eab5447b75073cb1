"""What is read back from a drawing: its texts, its parts, and from which part to which its arrows lead."""

import itertools

import numpy as np
from matplotlib.patches import FancyBboxPatch, Polygon


def texts(figure):
    """All texts that are seen, those at the axes too."""
    found = []
    for axes in figure.axes:
        found += [own for own in axes.texts if own.get_text()]
        for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
            low, high = axis.get_view_interval()
            labels = zip(axis.get_ticklabels(), axis.get_ticklocs(), strict=True)
            found += [label for label, at in labels if low <= at <= high and label.get_text()]
            found += [axis.label] if axis.label.get_text() else []
    return found


def hits(points, box):
    """Whether any of these points, (N, 2), lies in the box."""
    return ((points > box.min) & (points < box.max)).all(1).any()


def ways(figure):
    """Points all along every line that is drawn, (N, 2), in pixels."""
    for axes in figure.axes:
        for line in axes.lines:
            corners = axes.transData.transform(line.get_xydata())
            pieces = [np.linspace(*ends, 200) for ends in itertools.pairwise(corners)]
            yield np.concatenate(pieces or [corners])


def extent(axes, shape):
    """Where a shape is, (x0, y0, x1, y1), in the units of its axes: inches on a canvas."""
    return shape.get_window_extent().transformed(axes.transData.inverted()).extents


def parts(axes):
    """Where the drawing's parts are, (x0, y0, x1, y1) in inches, by the text in their middle; both images by number."""
    shapes = [own for own in axes.patches if isinstance(own, FancyBboxPatch | Polygon)]
    middles = {own.get_position(): own.get_text().split("\n")[0] for own in texts(axes.figure)}
    found = {f"image {i}": np.array(own.get_extent())[[0, 2, 1, 3]] for i, own in enumerate(axes.images)}
    for own in (extent(axes, shape) for shape in shapes):
        middle = (own[:2] + own[2:]) / 2
        found |= {text: own for at, text in middles.items() if np.abs(middle - at).max() < 1e-6}
    return found


def connections(axes):
    """From which part to which each arrow leads, by what stands in the part."""
    places = parts(axes)

    def nearest(point):
        def distance(name):
            low, high = places[name][:2], places[name][2:]
            return np.linalg.norm(np.clip(point, low, high) - point)

        return min(places, key=distance)

    def ends(line):
        way = line.get_xydata()
        return nearest(way[0]), nearest(way[-1] + 0.1 * (way[-1] - way[-2]) / np.linalg.norm(way[-1] - way[-2]))

    return [ends(line) for line in axes.lines]
