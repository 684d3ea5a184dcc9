"""Auto-encoder against variational auto-encoder: what do latents sound like that no clip was encoded to?

    python recipes/lecture/autoencoders.py --store stores/fsdd --judge recipes/fsdd/judges/augmented \\
        --runs runs/lecture --out recipes/lecture/results/autoencoders.json --plot autoencoders.png

Five trainings of one network, seed 0:

- `ae`: no noise on the latents, no KL (recipes/fsdd/ae.yaml);
- `vae`: learned noise, held open by the KL to the prior N(0, 1), alike in everything else;
- `conditional`: `vae` with a learned prior of each digit and speaker (recipes/fsdd/vae.yaml as it is);
- `wide`: `vae` trained on with three times the KL weight;
- `free`: `vae` trained on without the KL, so that the noise it learned is left free to shrink.

Each decodes the latents of the test clips (reconstructions), the points halfway between two training clips of one
digit and speaker (midpoints), samples of the prior (N(0, 1) but for `conditional`), and of diagonal Gaussians fitted to
the training latents afterwards: one for all (fitted), or one for each digit and speaker with a mean of its own and the
spread in common (fitted_kinds). A judge that never heard generated audio says what it hears and how sure it is. Cost:
about 1 h of one core; a training that is in --runs already is not repeated, one that was interrupted continues.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wavegen.audio.atomic import write_json
from wavegen.audio.mulaw import decode, from_companded, silence_code, to_companded
from wavegen.checkpoint import export_run, load_model
from wavegen.config import load_recipe
from wavegen.data.store import Store
from wavegen.engines.sampling import normal
from wavegen.errors import WavegenError
from wavegen.metrics.frechet import frechet_distance
from wavegen.metrics.judge import Judge, load_judges
from wavegen.metrics.spectral import log_mel_distance
from wavegen.models import VAE, ConditioningInputs

FSDD = Path(__file__).resolve().parents[1] / "fsdd"
KINDS: dict[str, tuple[str, list[str], str | None]] = {  # recipe, overrides, what it begins with
    "ae": ("ae.yaml", [], None),
    "vae": ("vae.yaml", ["model.prior=standard"], None),
    "conditional": ("vae.yaml", [], None),
    "wide": ("vae.yaml", ["model.prior=standard", "training.variational.kl_weight=12",
                          "training.variational.kl_warmup_steps=0", "training.optimizer.adamw_lr=0.0015",
                          "training.max_steps=350"], "vae"),
    "free": ("vae.yaml", ["model.prior=standard", "training.variational.kl_weight=0", "training.max_steps=250"], "vae"),
}
SETS = ("reconstructions", "midpoints", "prior", "fitted", "fitted_kinds")
COLOURS = {"ae": "tab:orange", "vae": "tab:blue", "conditional": "tab:purple", "wide": "navy", "free": "tab:green"}
BATCH = 50


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare auto-encoders where nothing was encoded.")
    parser.add_argument("--store", type=Path, required=True, help="spoken digits, made by `wavegen prepare`")
    parser.add_argument("--judge", type=Path, required=True, help="such as recipes/fsdd/judges/augmented")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the trainings")
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--plot", type=Path, help="picture to draw")
    parser.add_argument("--steps", type=int, help="of each training; the recipe's if left out")
    parser.add_argument("--clips", type=int, default=500, help="decoded of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the latents that are drawn")
    options = parser.parse_args()
    try:
        store = Store.open(options.store)
        (judge,) = load_judges(options.judge).values()
        report: dict[str, Any] = {"clips": options.clips, "seed": options.seed, "store_digest": store.digest}
        report["models"] = {kind: measure(trained(kind, options), store, judge, options.clips, options.seed)
                            for kind in KINDS}
        write_json(options.out, report)
        if options.plot is not None:
            draw(report, options.plot)
    except WavegenError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(table(report))
    return 0


def trained(kind: str, options: argparse.Namespace) -> Path:
    """The model folder of one kind; trains it first where that was not done yet."""
    name, overrides, begins_with = KINDS[kind]
    run = options.runs / kind
    if not (run / "model" / "config.json").is_file():
        from wavegen.checkpoint.run import latest_checkpoint
        from wavegen.training import fit

        first = None
        if begins_with is not None:
            trained(begins_with, options)
            first = latest_checkpoint(options.runs / begins_with)
        steps = [f"training.max_steps={options.steps}"] if options.steps else []
        fit(load_recipe(FSDD / name, [*overrides, *steps]), options.store, run, resume="auto", init_from=first)
        export_run(run, run / "model", name=kind)
    return run / "model"


def measure(folder: Path, store: Store, judge: Judge, clips: int, seed: int) -> dict[str, Any]:
    """What the judge hears in each set of clips, and how the latents of the training clips are spread."""
    loaded = load_model(folder)
    model = loaded.model
    assert isinstance(model, VAE)
    train, test = store.rows("train"), store.rows("test")
    means, stds = encode(model, store, train)
    recorded = windows(model, store, test)
    sounds, ids = {}, {}
    ids["reconstructions"] = names(store, test)
    sounds["reconstructions"] = speak(model, encode(model, store, test)[0], *ids["reconstructions"])
    first, second = pairs(store, train, clips, seed)
    ids["midpoints"] = names(store, train[first])
    sounds["midpoints"] = speak(model, (means[first] + means[second]) / 2, *ids["midpoints"])
    drawn = normal(seed, np.arange(clips), means[0].size).reshape(clips, *means.shape[1:])
    grid = np.arange(clips)
    told = grid % len(store.labels), grid // len(store.labels) % len(store.speakers)
    sounds["prior"], ids["prior"] = speak(model, drawn, *told), told
    sounds["fitted"], ids["fitted"] = speak(model, means.mean(0) + means.std(0) * drawn, *told), told
    centres, inside = of_kinds(means, *names(store, train), len(store.labels), len(store.speakers))
    sounds["fitted_kinds"], ids["fitted_kinds"] = speak(model, centres[told] + inside * drawn, *told), told

    reference = judge(list(recorded)).features
    rate = store.audio.sample_rate
    spread, noise = means.std(0), np.zeros(1) if stds is None else stds.mean(0)
    report: dict[str, Any] = {
        "training": loaded.spec.training, "parameters": sum(p.numel() for p in model.parameters()),
        "log_mel_distance": _mean(log_mel_distance(torch.from_numpy(sounds["reconstructions"]),
                                                   torch.from_numpy(recorded), rate)),
        "latents": {"spread_of_means": _mean(spread), "offset_of_means": _mean(np.abs(means.mean(0))),
                    "noise": _mean(noise), "noise_to_spread": round(float(noise.mean() / spread.mean()), 6)}}
    for kind in SETS:
        verdict = judge(list(sounds[kind]))
        report[kind] = {"frechet_distance": round(frechet_distance(verdict.features, reference), 2),
                        "accuracy": round(verdict.label_accuracy(ids[kind][0]), 4),
                        "confidence": _mean(verdict.labels.max(1)),
                        "speaker_accuracy": round(verdict.speaker_accuracy(ids[kind][1]), 4)}
    return report


def of_kinds(means: np.ndarray, label_ids: np.ndarray, speaker_ids: np.ndarray, labels: int,
             speakers: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean (labels, speakers, C, F) of the latents (N, C, F) of each kind, and their spread (C, F) around it."""
    centres = np.zeros((labels, speakers, *means.shape[1:]), np.float32)
    for label, speaker in np.ndindex(labels, speakers):
        of_it = (label_ids == label) & (speaker_ids == speaker)
        centres[label, speaker] = means[of_it].mean(0) if of_it.any() else means.mean(0)
    return centres, (means - centres[label_ids, speaker_ids]).std(0)


def windows(model: VAE, store: Store, rows: np.ndarray) -> np.ndarray:
    """The waveforms of rows as the model hears them: float32 (N, T), cut or followed by silence."""
    return decode(_codes(model, store, rows), store.audio.quantization_channels)


def encode(model: VAE, store: Store, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Means and standard deviations (N, C, F) of the posteriors of rows; None where there is no noise."""
    means, stds = [], []
    for begin in range(0, len(rows), BATCH):
        codes = _codes(model, store, rows[begin : begin + BATCH])
        with torch.inference_mode():
            label_ids, speaker_ids = names(store, rows[begin : begin + BATCH])
            told = ConditioningInputs(torch.from_numpy(label_ids), torch.from_numpy(speaker_ids))
            posterior = model.encode(torch.from_numpy(to_companded(codes, store.audio.quantization_channels)), told)
        means.append(posterior.mean.numpy())
        if posterior.log_std is not None:
            stds.append(posterior.log_std.exp().numpy())
    return np.concatenate(means), np.concatenate(stds) if stds else None


def speak(model: VAE, latents: np.ndarray, label_ids: np.ndarray, speaker_ids: np.ndarray) -> np.ndarray:
    """The waveforms float32 (N, T) of latents (N, C, F)."""
    clips = []
    for begin in range(0, len(latents), BATCH):
        some = slice(begin, begin + BATCH)
        told = ConditioningInputs(torch.from_numpy(label_ids[some]), torch.from_numpy(speaker_ids[some]))
        with torch.inference_mode():
            companded = model.decode(torch.from_numpy(latents[some]).float(), told)
        clips.append(from_companded(companded.numpy(), model.quantization_channels))
    return np.concatenate(clips)


def names(store: Store, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return store.label_ids[rows].astype(np.int64), store.speaker_ids[rows].astype(np.int64)


def pairs(store: Store, rows: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Places in `rows` of two different clips of one label and speaker, `count` times."""
    generator = np.random.default_rng(seed)
    kinds = store.label_ids[rows].astype(np.int64) * len(store.speakers) + store.speaker_ids[rows]
    found = [generator.choice(np.flatnonzero(kinds == kind), 2, replace=False)
             for kind in generator.choice(np.unique(kinds), count)]
    first, second = np.array(found).T
    return first, second


def draw(report: dict[str, Any], path: Path) -> None:
    """Frechet distance and confidence of every set for every model, side by side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    views = (("frechet_distance", "Frechet distance to recordings"), ("accuracy", "digits heard right"),
             ("confidence", "mean confidence of the judge"))
    for axis, (figure_of, title) in zip(axes, views, strict=True):
        for place, (kind, found) in enumerate(report["models"].items()):
            values = [found[one][figure_of] for one in SETS]
            axis.bar(np.arange(len(SETS)) + 0.17 * (place - 2), values, 0.16, label=kind, color=COLOURS[kind])
        axis.set_xticks(range(len(SETS)), [name.replace("_", "\n") for name in SETS], fontsize=6)
        axis.set_title(title, fontsize=10)
    axes[0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def table(report: dict[str, Any]) -> str:
    lines = [f"{'':11} {'log-mel':>8} {'noise':>8} " + " ".join(f"{kind:>24}" for kind in SETS)]
    for kind, found in report["models"].items():
        cells = [f"FID {one['frechet_distance']:7.1f}, heard {one['accuracy']:5.1%}"
                 for one in (found[name] for name in SETS)]
        lines.append(f"{kind:11} {found['log_mel_distance']:8.3f} {found['latents']['noise']:8.4f} "
                     + " ".join(f"{cell:>24}" for cell in cells))
    return "\n".join(lines)


def _codes(model: VAE, store: Store, rows: np.ndarray) -> np.ndarray:
    window = model.config.num_samples
    codes = np.full((len(rows), window), silence_code(store.audio.quantization_channels), np.int64)
    for place, row in enumerate(rows):
        clip = store.codes(int(row))[:window]
        codes[place, : len(clip)] = clip
    return codes


def _mean(values: Any) -> float:
    return round(float(np.asarray(values, np.float64).mean()), 4)


if __name__ == "__main__":
    sys.exit(main())
