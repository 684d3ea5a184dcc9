"""GAN against WGAN on recordings: does the critic's estimate say how good the generator is?

    python recipes/lecture/gan.py --store stores/fsdd --judge recipes/fsdd/judges/augmented \\
        --out results/gan.json --plot gan.png

First, training: two objectives (Jensen-Shannon, Wasserstein with gradient penalty), recordings as 8-bit codes or
spread inside their bins, and three seeds: twelve short trainings of one small pair of networks, alike in everything
else. At each checkpoint the critic's estimate of the distance to held-out recordings stands beside the Frechet distance
that a judge measures. Second, critics alone: the generators of a Wasserstein training stand still at several of its
checkpoints, and a new critic of each kind is trained on each. Cost: about 20 min of one core. What is in --out already
is not trained again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wavegen.audio.atomic import write_json
from wavegen.audio.mulaw import from_companded
from wavegen.checkpoint.run import read_checkpoint
from wavegen.config import Recipe, WGANConfig, load_recipe
from wavegen.data.batches import Batch, WindowBatches
from wavegen.data.store import Store
from wavegen.errors import WavegenError
from wavegen.metrics.frechet import frechet_distance
from wavegen.metrics.judge import Judge, load_judges
from wavegen.models import build_model
from wavegen.models.critic import Critic
from wavegen.training import fit
from wavegen.training.adversarial import critic_loss, penalty_norm
from wavegen.training.module import companded, to_inputs
from wavegen.training.optimizer import build_optimizer
from wavegen.training.trainer import build_vocabulary

RECIPE = Path(__file__).resolve().parents[1] / "fsdd" / "wgan.yaml"
KINDS = {  # name: objective, in-bin noise
    "js, in-bin noise": ("js_nonsaturating", True),
    "wasserstein, in-bin noise": ("wasserstein", True),
    "js, codes": ("js_nonsaturating", False),
    "wasserstein, codes": ("wasserstein", False),
}
SETTINGS = [  # no critic of spectrograms: in their space nothing is discrete
    "model.num_samples=4096", "model.channels=[128,64,32,16,8]", "training.samples_per_batch=65536",
    "training.ema_decay=0",  # the generator that the critic scores is the one that is judged
    "training.optimizer.flat_fraction=1",
    "training.adversarial.critic.channels=[8,16,32,64,128]", "training.adversarial.spectral=[]"]
PROBES = 6  # checkpoints whose generators stand still
SKIPPED = 0.2  # of the training, before estimates are compared
FIGURES = {"distance": "validation/validation_distance", "training_distance": "train/distance",
           "frechet": "validation/frechet_augmented", "accuracy": "validation/accuracy_augmented",
           "diversity": "validation/diversity"}


def main() -> int:
    parser = argparse.ArgumentParser(description="Train GANs and WGANs and compare their critics' estimates.")
    parser.add_argument("--store", type=Path, required=True, help="spoken digits, made by `wavegen prepare`")
    parser.add_argument("--judge", type=Path, required=True, help="such as recipes/fsdd/judges/augmented")
    parser.add_argument("--out", type=Path, required=True, help="JSON to write, or to continue")
    parser.add_argument("--plot", type=Path, help="picture to draw")
    parser.add_argument("--steps", type=int, default=600, help="of the generator")
    parser.add_argument("--checkpoints", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--critic-steps", type=int, default=250, help="of each critic trained alone")
    options = parser.parse_args()
    try:
        report: dict[str, Any] = {"steps": options.steps, "settings": SETTINGS, "runs": []}
        if options.out.is_file():
            report = json.loads(options.out.read_text())
            if report["steps"] != options.steps:
                raise WavegenError(f"{options.out} holds runs of {report['steps']} steps, not of {options.steps}; "
                                   "choose another --out")
        for kinds in (list(KINDS)[:2], list(KINDS)[2:]):
            for seed, kind in itertools.product(range(options.seeds), kinds):
                if any((run["kind"], run["seed"]) == (kind, seed) for run in report["runs"]):
                    continue
                report["runs"].append(train(kind, seed, options))
                report["summary"] = summarise(report["runs"])
                write_json(options.out, report)
                print(f"{kind}, seed {seed}: {report['runs'][-1]['rank_correlation']}")
        for seed in range(options.seeds):
            if any(probe["seed"] == seed for probe in report.setdefault("probes", [])):
                continue
            report["probes"].append(probe_critics(seed, options))
            write_json(options.out, report)
            print(f"critics alone, seed {seed}: {report['probes'][-1]['rank_correlation']}")
        if options.plot is not None:
            draw(report, options.plot)
    except WavegenError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def recipe_of(kind: str, seed: int, steps: int, checkpoints: int, judge: Path) -> Recipe:
    """The recipe of one training."""
    objective, noise = KINDS[kind]
    interval = max(1, steps // checkpoints)
    return load_recipe(RECIPE, [
        *SETTINGS, f"training.seed={seed}", f"training.max_steps={steps}",
        f"training.validation_interval={interval}", f"training.log_interval={interval}",
        f"training.checkpoint_interval={steps}", f"training.adversarial.judge={judge}",
        f"training.adversarial.objective={objective}", f"training.adversarial.in_bin_noise={noise}"])


def train(kind: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One training and the figures of its checkpoints."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = recipe_of(kind, seed, options.steps, options.checkpoints, options.judge)
        fit(recipe, options.store, Path(folder) / "run")
        curve = read_curve(Path(folder) / "run" / "tensorboard")
    run: dict[str, Any] = {"kind": kind, "seed": seed, "curve": curve, "rank_correlation": {}}
    late = [i for i, step in enumerate(curve["step"]) if step > SKIPPED * options.steps]
    for name in ("distance", "training_distance"):
        run["rank_correlation"][name] = rank_correlation([curve[name][i] for i in late],
                                                         [curve["frechet"][i] for i in late])
    return run


def probe_critics(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train new critics on generators that stand still: what each kind of estimate says when its critic is good."""
    recipe = recipe_of("wasserstein, in-bin noise", seed, options.steps, options.checkpoints, options.judge)
    every = max(1, options.steps // PROBES)
    keeping = {"checkpoint_interval": every, "keep_checkpoints": PROBES, "validation_interval": options.steps}
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update=keeping)})
    store = Store.open(options.store)
    judge = next(iter(load_judges(options.judge).values()))
    found: dict[str, Any] = {"seed": seed, "step": [], "frechet": [], "estimate": {kind: [] for kind in KINDS}}
    with tempfile.TemporaryDirectory() as folder:
        fit(recipe, options.store, Path(folder) / "run")
        for path in sorted((Path(folder) / "run" / "checkpoints").glob("*.ckpt"), key=lambda p: int(p.stem[5:])):
            content = read_checkpoint(path)["wavegen"]
            generator = build_model(recipe.model, recipe.audio, build_vocabulary(store)).eval()
            generator.load_state_dict(content["ema"])
            found["step"].append(content["step"])
            found["frechet"].append(heard_distance(generator, store, recipe, judge))
            for kind in KINDS:
                kind_recipe = recipe_of(kind, seed, options.steps, options.checkpoints, options.judge)
                found["estimate"][kind].append(critic_alone(generator, store, kind_recipe, options.critic_steps))
    found["rank_correlation"] = {kind: rank_correlation(values, found["frechet"])
                                 for kind, values in found["estimate"].items()}
    return found


def critic_alone(generator: Any, store: Store, recipe: Recipe, steps: int) -> float:
    """The estimate on held-out recordings of a critic trained for `steps` against a generator that stands still."""
    game, model, training = recipe.training.adversarial, recipe.model, recipe.training
    assert isinstance(model, WGANConfig)
    torch.manual_seed(training.seed)
    # Without phase shuffle the critic is one function, in training and after it.
    critic = Critic(game.critic.model_copy(update={"phase_shuffle": 0}), model.num_samples, 1, model,
                    build_vocabulary(store))
    critic.compute_dtype = torch.bfloat16  # as in training
    optimizer = build_optimizer(critic, training.optimizer, training.gradient_clip)

    def scores(batch: Batch) -> tuple[Any, ...]:
        _, inputs = to_inputs(batch, "cpu")
        real = companded(batch, 256, "cpu", noise=game.in_bin_noise)[..., None]
        with torch.no_grad():
            fake = generator(torch.randn(len(real), *generator.latent_shape), inputs)[..., None]
        return real, fake, inputs, critic(real, inputs), critic(fake, inputs)

    def windows(split: str) -> WindowBatches:
        return WindowBatches(store, split, training.samples_per_batch, 0, 1, seed=training.seed,
                             fixed=model.num_samples)

    train, held_out = windows("train"), windows("test")
    for step in range(steps):
        real, fake, inputs, high, low = scores(train.batch(step))
        loss, _ = critic_loss(high, low, game.objective)
        if game.objective == "wasserstein":
            loss = loss + game.penalty_weight * (penalty_norm(critic, real, fake, inputs) - 1).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        parts = [scores(held_out.collate(chosen))[3:] for chosen in held_out.sequential()]
        return round(critic_loss(*(torch.cat(part) for part in zip(*parts, strict=True)), game.objective)[1], 5)


def heard_distance(generator: Any, store: Store, recipe: Recipe, judge: Judge) -> float:
    """Frechet distance of a clip for each held-out recording to these recordings."""
    windows = WindowBatches(store, "test", 2**20, 0, 1, fixed=generator.num_samples)
    torch.manual_seed(0)
    features: tuple[list[Any], list[Any]] = ([], [])
    for chosen in windows.sequential():
        batch = windows.collate(chosen)
        with torch.no_grad():
            fake = generator(torch.randn(len(batch.codes), *generator.latent_shape), to_inputs(batch, "cpu")[1])
        real = companded(batch, 256, "cpu", noise=False)
        for clips, kept in zip((fake.numpy(), real.numpy()), features, strict=True):
            kept.append(judge(list(from_companded(clips))).features)
    return round(frechet_distance(*(np.concatenate(kept) for kept in features)), 3)


def read_curve(folder: Path) -> dict[str, list[float]]:
    """The logged figures at each validation."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    curve: dict[str, list[float]] = {}
    for name, tag in FIGURES.items():
        scalars = {event.step + 1: round(event.value, 5) for event in events.Scalars(tag)}  # the logger counts from 0
        curve.setdefault("step", sorted(scalars))
        curve[name] = [scalars[step] for step in curve["step"]]
    return curve


def rank_correlation(first: list[float], second: list[float]) -> float | None:
    """Spearman's rank correlation, without ties; None for fewer than three pairs."""
    if len(first) < 3:
        return None
    ranks = [np.argsort(np.argsort(values)).astype(float) for values in (first, second)]
    return round(float(np.corrcoef(*ranks)[0, 1]), 3)


def summarise(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Each kind over its seeds."""
    found: dict[str, Any] = {}
    for kind in KINDS:
        mine = [run for run in runs if run["kind"] == kind]
        if not mine:
            continue
        found[kind] = {
            "frechet": [run["curve"]["frechet"][-1] for run in mine],
            "accuracy": [run["curve"]["accuracy"][-1] for run in mine],
            "rank_correlation": [run["rank_correlation"]["distance"] for run in mine],
            "rank_correlation_training": [run["rank_correlation"]["training_distance"] for run in mine],
            "estimate": [run["curve"]["distance"][-1] for run in mine],
        }
        if kind.startswith("js"):  # 1 where the estimate says that nothing is alike
            late = [float(np.mean(run["curve"]["training_distance"][-5:])) for run in mine]
            found[kind]["share_of_log_2"] = [round(value / math.log(2), 4) for value in late]
    return found


def draw(report: dict[str, Any], path: Path) -> None:
    """The critic's estimate above, the Frechet distance below, one column a kind."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, len(KINDS), figsize=(3.4 * len(KINDS), 5), sharex=True)
    for column, kind in enumerate(KINDS):
        above, below = axes[:, column]
        for run in (run for run in report["runs"] if run["kind"] == kind):
            curve = run["curve"]
            above.plot(curve["step"], curve["distance"], label=f"held out, seed {run['seed']}")
            above.plot(curve["step"], curve["training_distance"], ":", color=above.lines[-1].get_color())
            below.plot(curve["step"], curve["frechet"])
        above.set_title(kind)
        if kind.startswith("js"):
            above.axhline(math.log(2), color="grey", linewidth=0.8, linestyle="--")
            above.set_ylim(-0.5, 0.8)
        below.set_ylim(0, None)
        below.set_xlabel("steps of the generator")
    axes[0, 0].set_ylabel("critic's estimate\n(dotted: on its batches)")
    axes[1, 0].set_ylabel("Frechet distance")
    axes[0, 0].legend(fontsize=7)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
