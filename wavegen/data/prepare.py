"""From a folder of recordings to a store."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from wavegen.audio import io, levels, mulaw
from wavegen.config import AudioConfig, PrepareConfig, Recipe
from wavegen.data.store import FileRecord, StoreInfo, Totals, code_dtype, sha256_of
from wavegen.errors import AudioError

SILENCE = 1e-4  # a clip whose peak lies below holds three steps of 16 bits at most


def level(waveform: np.ndarray, sample_rate: int, config: PrepareConfig) -> tuple[np.ndarray, float, float]:
    """Offset, gain, trimming, fades: (T,) to (T',), with the gain and the peak found."""
    if config.remove_dc:
        waveform = levels.remove_dc(waveform)
    peak = float(np.max(np.abs(waveform)))
    if not peak > SILENCE:
        raise AudioError(f"silent: its peak is {peak:.2g}")
    gain = 1.0
    if config.normalize == "peak":
        waveform, gain = levels.normalize_peak(waveform, config.peak)
    if config.trim is not None:
        start, stop = levels.trim_bounds(waveform, sample_rate, config.trim)
        waveform = waveform[start:stop]
    waveform = levels.fade(waveform, sample_rate, config.fade_in_ms, config.fade_out_ms)
    return np.clip(waveform, -1.0, 1.0), gain, peak


def prepare(recipe: Recipe, data_dir: str | Path, out_dir: str | Path, strict: bool = False,
            workers: int | None = None, progress: bool = True) -> dict[str, Any]:
    config, audio, data_dir, out = recipe.prepare, recipe.audio, Path(data_dir), Path(out_dir)
    out.mkdir(parents=True)
    splits: dict[str, Totals] = {"train": Totals(utterances=0, samples=0)}
    labels, speakers, offset = set(), set(), 0
    with open(out / "index.jsonl", "wb") as index, open(out / "codes-00000.u8", "wb") as shard:
        for path in sorted(p for p in data_dir.glob(config.glob) if p.is_file()):
            source = path.relative_to(data_dir).as_posix()
            match = re.fullmatch(config.pattern or ".*", source)
            groups = match.groupdict() if match else {}
            split = next((name for name, wanted in config.splits.items()
                          if all(groups.get(k) in v for k, v in wanted.items())), "train")
            waveform, rate = io.load(path, audio.sample_rate)
            clipped = int(np.count_nonzero(np.abs(waveform) >= 0.999))
            waveform, gain, peak = level(waveform, rate, config)
            codes = mulaw.encode(waveform, audio.quantization_channels).astype(code_dtype(audio))
            row = {"id": groups.get("id") or source, "shard": 0, "offset": offset, "num_samples": len(codes),
                   "split": split, "label": groups.get("label"), "speaker": groups.get("speaker"),
                   "text": groups.get("text"), "source": source, "gain": gain, "clipped": clipped,
                   "peak": float(np.float32(peak))}
            index.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            shard.write(codes.tobytes())
            offset += len(codes)
            labels.add(row["label"])
            speakers.add(row["speaker"])
            old = splits.get(split, Totals(utterances=0, samples=0))
            splits[split] = Totals(utterances=old.utterances + 1, samples=old.samples + len(codes))
    records = [FileRecord(name=n, bytes=(out / n).stat().st_size, sha256=sha256_of(out / n))
               for n in ("index.jsonl", "codes-00000.u8")]
    info = StoreInfo(audio=audio, labels=config.labels or tuple(sorted(labels)),
                     speakers=config.speakers or tuple(sorted(speakers)), splits=splits, index=records[0],
                     codes=(records[1],), prepare=config)
    (out / "store.json").write_text(info.model_dump_json(indent=2) + "\n", "utf-8")
    return {}
