"""Speed on a card: whole jobs through the box's worker, beside the library called plainly, beside the counted floor.

    python -m scripts.bench.gpu [--models ltx-2.5,flux2-klein-4b,z-image-turbo] [--tiny] [--card 0]
                                [--recipe NAME] [--rounds 3]

The models have their full size and random weights; nothing is downloaded (see `hollow`). Where there is no card, or
with --tiny, the same road is gone with tiny models on the processor, and what is missing is said: no figure is
estimated in its place. One side runs after the other, because two sets of weights do not fit one card.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from scripts.bench.gpu_box import Told, batches, measure_box
from scripts.bench.gpu_plain import Measured, Order
from scripts.bench.hollow import full_plan, lay_out, plan_of
from scripts.bench.table import aim, show
from scripts.tiny_models import cached, tiny_specs
from tests.running import ROOT
from zsky_box.catalog import Catalog
from zsky_box.devices import card_count
from zsky_box.events import Run
from zsky_box.formats import render_size
from zsky_box.manifest import Ltx2Options, ModelSpec, Recipe
from zsky_box.worker_main import device_name
from zsky_box.worker_process import environment

MODELS: Final = {"ltx-2.5": "tiny-ltx25", "flux2-klein-4b": "tiny-klein", "z-image-turbo": "tiny-z-image"}
PROMPT: Final = "a lighthouse in the fog, waves break on the rocks below, a bell rings twice"
FULL_SIZE, TINY_SIZE = (1920, 1080, 121), (256, 144, 25)
PLAIN_SECONDS_MAX: Final = 3_600.0
SMALLER: Final = {"int8": 0.53, "fp8": 0.53, "fp8_dynamic": 0.53, "nf4": 0.3}  # of bf16, with scales and what is kept
AIM_SECONDS: Final = {"video": 15.0, "image": 1.0}
AIM_OVERHEAD_PERCENT: Final = 3.0
GIB: Final = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", default=",".join(MODELS), help="which, with commas (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="tiny models on the processor, though there is a card")
    parser.add_argument("--card", type=int, default=0, help="which card, as nvidia-smi counts")
    parser.add_argument("--recipe", help="the recipe's name (default: the first of the manifest that fits the card)")
    parser.add_argument("--rounds", type=int, default=3, help="measured jobs of each side, after one to warm up")
    given = parser.parse_args()
    names = str(given.models).split(",")
    if unknown := sorted(set(names) - set(MODELS)):
        parser.error(f"--models: {', '.join(unknown)} is not among {', '.join(MODELS)}")
    tiny = bool(given.tiny) or card_count() == 0
    device = "cpu" if tiny else f"cuda:{given.card}"
    print(f"{device}: {device_name(device)}; random weights")
    if tiny:
        print(
            "Tiny models on the processor: this shows that both roads run from end to end, and nothing of a card.\n"
            "Missing, and not estimated: seconds, peak bytes and phases of LTX-2.5, FLUX.2 klein 4B and Z-Image-Turbo\n"
            "at their full size; the box's overhead on a card; how busy a backlog keeps it; the card's rate of matrix\n"
            "products and with it the floor; what a batch of images gains. They need one NVIDIA card of 80 GB."
        )
    for name in names:
        with tempfile.TemporaryDirectory(prefix="zsky-gpu-") as folder:
            run, sizes = prepare(name, Path(folder), device, given.recipe)
            show_model(run, sizes, device, int(given.rounds))


def prepare(name: str, folder: Path, device: str, recipe_name: str | None) -> tuple[Run, dict[str, int]]:
    """A hollow checkpoint and the job to run on it; raises SystemExit where no recipe fits the card."""
    if device == "cpu":
        spec = next(spec for spec in tiny_specs() if spec.name == MODELS[name])
        plan, (width, height, frames) = plan_of(cached(spec.name)), TINY_SIZE
    else:
        spec = Catalog([ROOT / "models"], folder).specs[name]
        plan, (width, height, frames) = full_plan(name), FULL_SIZE
    sizes = lay_out(plan, folder / "weights", spec.dtype)
    recipe = choose(spec, sizes, device, recipe_name)
    (folder / "out").mkdir()
    is_video = spec.makes[0] == "video"
    run = Run(
        job_id="bench",
        token=0,
        type=spec.makes[0],
        model=spec,
        weights_dir=str(folder / "weights"),
        out_dir=str(folder / "out"),
        stem="bench",
        prompt=PROMPT,
        negative_prompt="",
        seed=7,
        n=1,
        width=width,
        height=height,
        frames=frames if is_video else 1,
        fps=24,
        test=False,
        recipe=recipe,
    )
    return run, sizes


def choose(spec: ModelSpec, sizes: dict[str, int], device: str, name: str | None) -> Recipe:
    """The recipe of that name, else the first whose weights and working memory fit the card's memory."""
    if name is not None:
        for recipe in spec.ways:
            if recipe.name == name:
                return recipe
        raise SystemExit(f"{spec.name} has no recipe {name!r}, but {', '.join(recipe.name for recipe in spec.ways)}")
    if device == "cpu":
        return spec.ways[0]
    total_bytes, capability = card_limits(int(device.removeprefix("cuda:")))
    for recipe in spec.ways:
        kept = {part: size * SMALLER.get(recipe.quantise.get(part, ""), 1.0) for part, size in sizes.items()}
        weights = sum(kept.values()) if recipe.offload == "none" else max(kept.values())
        if weights + recipe.working_gib * GIB <= total_bytes and recipe.capability <= capability:
            return recipe
    raise SystemExit(f"No recipe of {spec.name} fits this card of {total_bytes / GIB:.0f} GiB; name one with --recipe.")


def card_limits(number: int) -> tuple[int, float]:
    """The card's memory in bytes and its compute capability, as 8.9."""
    import pynvml

    pynvml.nvmlInit()
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(number)
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle).total), major + minor / 10
    finally:
        pynvml.nvmlShutdown()


def measure_plain(run: Run, device: str, rounds: int) -> Measured:
    """The plain side, in a process that ends before the box's begins."""
    # As for a worker's child: the card is the only one that the process sees.
    order = Order(run=run, device="cpu" if device == "cpu" else "cuda:0", rounds=rounds)
    answer = Path(run.out_dir).parent / "plain.json"
    command = [sys.executable, "-W", "ignore", "-m", "scripts.bench.gpu_plain"]
    subprocess.run(
        [*command, msgspec.json.encode(order).decode(), str(answer)],
        check=True,
        cwd=ROOT,
        env=environment(device, None),
        timeout=PLAIN_SECONDS_MAX,
        stderr=subprocess.DEVNULL if device == "cpu" else None,
    )
    return msgspec.json.decode(answer.read_bytes(), type=Measured)


def operations(run: Run) -> float | None:
    """Floating-point operations of all passes through the transformer, counted from the manifest's cost.

    A pass multiplies each token by every parameter, and attention pairs all tokens in each layer: 2 · P · T and
    4 · layers · width · T². Text and sound tokens, the encoders and the decoding are not in it: it is a floor.
    """
    cost, options = run.model.cost, run.model.options
    if cost is None:
        return None
    stages = options.stages if isinstance(options, Ltx2Options) else 1
    width, height = render_size(run.width, run.height, run.model.size_multiple * stages)
    depth = (run.frames - 1) // run.model.frame_step + 1
    full = width // cost.pixels_per_token * (height // cost.pixels_per_token) * depth
    if not isinstance(options, Ltx2Options):
        passes = {full: getattr(options, "steps", 1)}
    elif not options.distilled:
        passes = {full: options.steps}
    else:
        passes = {full: 8} if stages == 1 else {full // 4: 8, full: 3}
    return sum(
        count * (2 * cost.parameters_billion * 1e9 * tokens + 4 * cost.layers * cost.width * tokens**2)
        for tokens, count in passes.items()
    )


def show_model(run: Run, sizes: dict[str, int], device: str, rounds: int) -> None:
    """Measure both sides of one model, and print its tables."""
    recipe, on_card = run.recipe, device != "cpu"
    plain = measure_plain(run, device, rounds)
    box = measure_box(run, device, rounds)
    what = f"{run.width}x{run.height}" + (f", {run.frames} frames with sound" if run.type == "video" else "")
    weights = sum(sizes.values()) / GIB
    show(
        f"{run.model.title}: {what}; recipe {recipe.name}; weights of {weights:.1f} GiB before it",
        ("end to end, finished file", "median s", "best s", "peak GiB", "aim"),
        [
            ("box's worker", *pace(box.seconds), gib(box.peak_bytes), promise(run, box, on_card)),
            ("plain diffusers", *pace(plain.seconds), gib(plain.peak_bytes), ""),
            ("floor of the passes", *floor(run, box, on_card), "", ""),
        ],
    )
    show_shares(box, plain, on_card)
    if on_card and run.type == "image":
        rows = [
            (str(at_once), f"{told.seconds_an_image:.2f}", gib(told.peak_bytes))
            for at_once, told in batches(run, device)
        ]
        show("Four images of one job", ("denoised at once", "s an image", "peak GiB"), rows)


def show_shares(box: Told, plain: Measured, on_card: bool) -> None:
    """Where the time goes, what the box adds, and what a backlog makes of the card."""
    whole = statistics.median(box.seconds)
    rows = [(phase, f"{seconds:.2f}", f"{100 * seconds / whole:.1f} %") for phase, seconds in box.phases.items()]
    added = 100 * (1 - sum(box.phases.values()) / whole)
    over = 100 * (whole / statistics.median(plain.seconds) - 1)
    bound = aim(added, AIM_OVERHEAD_PERCENT, "%") if on_card else ""
    rows += [
        ("outside of the phases", "", f"{added:.1f} %  {bound}".rstrip()),
        ("more than plain", "", f"{over:+.1f} %"),
    ]
    show("Share of each phase", ("phase", "median s", "share"), rows)
    busy = "-" if box.busy_percent is None else f"{box.busy_percent:.0f} %"
    wanted = "" if box.busy_percent is None else f"> 97 %{'' if box.busy_percent >= 97 else ' MISSED'}"
    rows = [(f"{box.backlog_jobs} jobs", f"{box.backlog_seconds / box.backlog_jobs:.2f}", busy, wanted)]
    show("With a backlog", ("", "s a job", "card busy", "aim"), rows)


def pace(seconds: list[float]) -> tuple[str, str]:
    """Median and best, for two cells."""
    return f"{statistics.median(seconds):.2f}", f"{min(seconds):.2f}"


def gib(count: int) -> str:
    """Bytes for a cell; a dash where nobody told."""
    return f"{count / GIB:.1f}" if count else "-"


def promise(run: Run, box: Told, on_card: bool) -> str:
    """The aim, which is for an H200."""
    return f"{aim(statistics.median(box.seconds), AIM_SECONDS[run.type], 's')} on an H200" if on_card else ""


def floor(run: Run, box: Told, on_card: bool) -> tuple[str, str]:
    """The counted operations at the rate that the child measured on its card; dashes where either is not known."""
    counted = operations(run)
    if not on_card or counted is None or not box.flops:
        return "-", "-"
    return f"{counted / box.flops:.2f}", f"({counted / 1e15:.2f} PFLOP)"


if __name__ == "__main__":
    main()
