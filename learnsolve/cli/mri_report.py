"""``learnsolve mri report``: a picture and a page on what `learnsolve mri recon` has made."""

import base64
import html
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from learnsolve.cli.common import FAILED, say_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from learnsolve.batch.scans import Recipe
    from learnsolve.datasets.kspace import KSpace

# By so much is an error brighter than the image.
BRIGHTER = 10
MAPS = 4


def report(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="What learnsolve mri recon has written.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A folder.", show_default="that of the file")
    ] = None,
    index: Annotated[
        int | None, typer.Option("--slice", min=0, help="Which one is shown.", show_default="the middle one")
    ] = None,
) -> None:
    """Write NAME.png, a montage of a slice, and NAME.html, one page with all there is to know of a file.

    The slice is reconstructed again, as its file says. Exit code 1: a file is not of learnsolve mri recon, or
    the k-space it was made of is no longer there.
    """
    failed = False
    for path in files:
        try:
            typer.echo(f"wrote {written(path, path.parent if out is None else out, index)}")
        except (OSError, ValueError) as error:
            failed = True
            say_error(error)
    if failed:
        raise typer.Exit(FAILED)


def written(path: Path, out: Path, index: int | None = None) -> Path:
    """Write the picture and the page of a file; the page's path.

    Raises
    ------
    ValueError
        It is no file of ``learnsolve mri recon``, or has no such slice.
    OSError
        It, or the k-space it was made of, is not there.
    """
    import h5py

    from learnsolve.batch.scans import Recipe
    from learnsolve.datasets.kspace import open_kspace
    from learnsolve.files import replacing

    try:
        with h5py.File(path) as file:
            record = json.loads(file.attrs["learnsolve"])
            recipe = Recipe.of_record(record["recipe"])
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}") from None
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not of learnsolve mri recon ({error})") from None
    skipped = {one["slice"] for one in record["skipped"]}
    source = Path(record["file"])
    with open_kspace(source, key=recipe.key, axes=recipe.axes) as kspace:
        shown = [i for i in range(len(kspace)) if i not in skipped]
        if index is None and not shown:
            raise ValueError(f"all slices of {path} were skipped")
        index = shown[len(shown) // 2] if index is None else index
        if index not in shown:
            raise ValueError(f"slice {index} of {path} was skipped, or is not there")
        figure = montage(kspace, index, recipe, source)
    out.mkdir(parents=True, exist_ok=True)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=110, format="png")
    with replacing(out / f"{path.stem}.png") as part:
        part.write_bytes(picture.getvalue())
    page = out / f"{path.stem}.html"
    with replacing(page) as part:
        part.write_text(_page(record, picture.getvalue(), index), encoding="utf-8", newline="\n")
    return page


def montage(kspace: "KSpace", index: int, recipe: "Recipe", path: Path) -> "Figure":
    """Image, reference, error, mask, maps and convergence of a slice."""
    import numpy as np
    import torch
    from matplotlib.figure import Figure

    from learnsolve.batch.scans import solved
    from learnsolve.mri import factor, sampled_of, zero_filled

    k = torch.from_numpy(kspace[index])
    sampled = recipe.sampled(kspace, path)
    res = solved(kspace, index, recipe, sampled)
    mask = sampled_of(k) if sampled is None else sampled
    centred = kspace.centred
    full = bool((sampled_of(k) if kspace.sampled is None else torch.from_numpy(kspace.sampled)).all())
    image = res.x.abs().numpy()
    reference = zero_filled(k, centred=centred).numpy() if full else None
    top = float(image.max() if reference is None else reference.max()) or 1.0
    figure = Figure(figsize=(12.0, 6.4), layout="constrained")
    axes = figure.subplots(2, 4)

    def show(place: Any, values: Any, title: str, most: float) -> None:
        place.imshow(values, cmap="gray", vmin=0, vmax=most, interpolation="nearest")
        place.set_title(title, fontsize=9)
        place.set_axis_off()

    show(axes[0, 0], image, f"{res.method}, slice {index}", top)
    if reference is None:
        first = zero_filled(torch.where(mask, k, 0), centred=centred).numpy()
        show(axes[0, 1], first, "zero-filled", top)
        show(axes[0, 2], np.abs(image - first) * BRIGHTER, f"difference x {BRIGHTER}", top)
    else:
        show(axes[0, 1], reference, "reference: all of k-space", top)
        show(axes[0, 2], np.abs(image - reference) * BRIGHTER, f"error x {BRIGHTER}", top)
    drawn = mask if centred else torch.fft.fftshift(mask, (-2, -1))
    show(axes[0, 3], drawn.numpy(), f"mask, factor {factor(mask):.2f}", 1.0)
    maps = res.extras.get("maps")
    for number, place in enumerate(axes[1, : MAPS - 1]):
        if maps is not None and number < maps.shape[-3]:
            show(place, maps[number].abs().numpy(), f"map of coil {number}", float(maps.abs().max()))
        else:
            place.set_axis_off()
    last = axes[1, 3]
    residuals = np.maximum(res.residuals, 1e-30)
    last.semilogy(residuals / residuals[0], marker="." if len(residuals) < 20 else "")
    last.set_title("residual of the data", fontsize=9)
    last.set_xlabel("iteration")
    return figure


def _page(record: dict[str, Any], picture: bytes, index: int) -> str:
    """All there is to know, in one file that needs no other."""
    shown = {
        "file": Path(record["file"]).name,
        "what it is": record["verdict"],
        "method": record["method"],
        "maps": record["maps"],
        "slices": record["slices"],
    }
    if "factor" in record:
        shown["factor"] = f"{record['factor']:.3f}"
    shown |= {f"mean {name}": f"{value:.4f}" for name, value in record["metrics"].items()}
    for name in ("skipped", "not_converged", "fallback"):
        shown[name.replace("_", " ")] = json.dumps(record[name]) if record[name] else "none"
    rows = "\n".join(
        f"<tr><th>{html.escape(str(name))}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in shown.items()
    )
    encoded = base64.b64encode(picture).decode("ascii")
    title = html.escape(f"{Path(record['file']).name}, {record['method']}")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font-family: sans-serif; margin: 2em auto; max-width: 75em; }}
th {{ text-align: left; padding-right: 2em; vertical-align: top; }}
img {{ max-width: 100%; }}
</style>
</head>
<body>
<h1>{title}</h1>
<img alt="montage of slice {index}" src="data:image/png;base64,{encoded}">
<table>
{rows}
</table>
</body>
</html>
"""
