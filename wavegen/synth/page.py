"""A page to listen to and choose from: every clip of a folder, playable, sorted and marked in the browser."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wavegen.audio import io
from wavegen.audio.atomic import atomic_write
from wavegen.errors import AudioError
from wavegen.synth.manifest import Ledger

PAGE = "index.html"
COLUMNS = 48  # of the little picture of a waveform
MAX_SECONDS = 60.0  # of a clip that is looked at

HTML = """<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">
<title>TITLE</title><style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 1rem auto; max-width: 1400px; padding: 0 1rem }
header { position: sticky; top: 0; background: #fff; padding: .5rem 0; border-bottom: 1px solid #ccc; z-index: 1 }
#clips { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: .5rem; margin-top: .7rem }
.clip { border: 1px solid #ccc; border-radius: .4rem; padding: .3rem; cursor: pointer; background: #fff }
.clip:focus { outline: 3px solid #1769aa } .playing { background: #e3f0fb } .picked { background: #fff3c4 }
.clip svg { display: block; width: 100%; height: 44px } .clip path { fill: #456 }
.name { display: flex; justify-content: space-between; font-size: 12px; word-break: break-all }
.name button { border: 0; background: none; font-size: 16px; cursor: pointer; padding: 0 .2rem }
textarea { width: 100%; height: 6rem; font: 12px monospace } small { color: #555 }
</style><body><header><b>TITLE</b> <span id=count></span>
<label>show <select id=label></select></label> <label>sort by <select id=sort>
<option value=place>number<option value=seconds>length<option value=brightness>brightness<option value=noise>noise
<option value=level>loudness</select></label> <label><input type=checkbox id=only> picked only</label>
<small>Click or Enter plays, arrow keys go on, P picks; picks stay in this browser.</small></header>
<div id=clips></div><h3>Picked</h3><textarea id=picks readonly></textarea>
<p>More like one of them: <code id=more></code></p><audio id=player></audio>
<script>
const clips = DATA, key = "wavegen " + location.pathname, $ = id => document.getElementById(id)
let picked = new Set(JSON.parse(localStorage.getItem(key) || "[]")), last = null
const labels = [...new Set(clips.map(clip => clip.label))]
$("label").append(new Option("all", ""), ...labels.map(label => new Option(label, label)))
for (const clip of clips) {
  const box = clip.box = document.createElement("div"), n = clip.wave.length
  box.className = "clip"; box.tabIndex = 0
  box.title = `${clip.path}: ${clip.seconds} s, peak ${clip.peak} dB, ${clip.brightness} Hz`
  const line = clip.wave.map((v, i) => `${i},${22 - v / 5}`).concat(clip.wave.map((v, i) =>
    `${n - 1 - i},${22 + clip.wave[n - 1 - i] / 5}`)).join("L")
  box.innerHTML = `<svg viewBox="0 0 ${n - 1} 44" preserveAspectRatio=none><path d="M${line}Z"/></svg>` +
    "<div class=name><span></span><button tabindex=-1>☆</button></div>"
  box.querySelector("span").textContent = clip.path.replace(/\\.\\w+$/, "")
  box.onclick = () => play(clip)
  box.querySelector("button").onclick = event => { event.stopPropagation(); pick(clip) }
  box.onkeydown = event => {
    const move = {ArrowRight: "nextSibling", ArrowLeft: "previousSibling"}[event.key]
    if (move && box[move]) { box[move].focus(); box[move].click(); event.preventDefault() }
    if (event.key === "Enter" || event.key === " ") { play(clip); event.preventDefault() }
    if (event.key === "p" || event.key === "P") pick(clip)
  }
}
function play(clip) {
  if (last) last.box.classList.remove("playing")
  last = clip; clip.box.classList.add("playing"); clip.box.focus()
  $("player").src = encodeURIComponent(clip.path); $("player").play(); told(clip)
}
function pick(clip) {
  picked.has(clip.path) ? picked.delete(clip.path) : picked.add(clip.path)
  localStorage.setItem(key, JSON.stringify([...picked])); if ($("only").checked) show(); else marks(); told(clip)
}
function told(clip) { $("more").textContent = clip.more || "" }
function marks() {
  for (const clip of clips) {
    const is = picked.has(clip.path)
    clip.box.classList.toggle("picked", is); clip.box.querySelector("button").textContent = is ? "★" : "☆"
  }
  $("picks").value = clips.filter(clip => picked.has(clip.path)).map(clip => clip.path).join("\\n")
}
function show() {
  const by = $("sort").value, label = $("label").value
  const shown = clips.filter(clip => (!label || clip.label === label) && (!$("only").checked || picked.has(clip.path)))
  shown.sort((a, b) => a[by] - b[by] || a.place - b.place)
  $("clips").replaceChildren(...shown.map(clip => clip.box)); $("count").textContent = shown.length + " clips"; marks()
}
for (const id of ["label", "sort", "only"]) $(id).onchange = show
show()
</script></body></html>
"""


def write_page(folder: Path, model: str | Path, title: str = "") -> Path:
    """Write `index.html` over all clips that the manifest of a folder names; it needs nothing but a browser.

    Args:
        folder: written by `write_clips`.
        model: as it was named, for the command that makes more like a clip.
        title: of the page; the folder's name if left out.

    Returns:
        the page.

    Raises:
        WavegenError: it cannot be written.
    """
    rows = [row for row in Ledger(folder).rows() if "error" not in row and (folder / str(row.get("path"))).is_file()]
    clips = [clip for place, row in enumerate(rows) if (clip := _clip(folder, row, place, str(model)))]
    data = json.dumps(clips, ensure_ascii=False).replace("<", "\\u003c")
    name = (title or folder.resolve().name).replace("&", "&amp;").replace("<", "&lt;")
    with atomic_write(folder / PAGE) as file:
        # In one go: a folder may be called DATA, and a clip TITLE.
        file.write(re.sub("TITLE|DATA", lambda found: {"TITLE": name, "DATA": data}[found[0]], HTML).encode())
    return folder / PAGE


def _clip(folder: Path, row: dict[str, Any], place: int, model: str) -> dict[str, Any] | None:
    """What the page is told of a clip; None where its file can no longer be read."""
    path = folder / row["path"]
    try:
        waveform, rate = io.read(path)
    except AudioError:
        return None
    waveform = waveform[: round(MAX_SECONDS * rate)]
    peak, level = float(np.abs(waveform).max()), float(np.sqrt(np.mean(waveform.astype(np.float64) ** 2)))
    brightness, noise = _spectrum(waveform, rate)
    label = row.get("label") or row.get("speaker") or ""
    more = f"wavegen synth {shlex.quote(model)} --near {shlex.quote(str(path))} --count 16 --page --out more"
    return {"path": row["path"], "place": place, "label": "-".join(label) if isinstance(label, list) else label,
            "seconds": round(float(row.get("seconds", len(waveform) / rate)), 3), "peak": _decibels(peak),
            "level": _decibels(level), "brightness": brightness, "noise": noise, "wave": _outline(waveform, peak),
            "more": more if "weights_sha256" in row and not isinstance(label, list) else ""}


def _outline(waveform: np.ndarray, peak: float) -> list[int]:
    """The largest magnitude of each part of a clip, 0 to 100 of its peak."""
    parts = np.array_split(np.abs(waveform), min(COLUMNS, len(waveform)))
    return [round(100 * float(part.max()) / max(peak, 1e-9)) for part in parts]


def _spectrum(waveform: np.ndarray, rate: int) -> tuple[int, float]:
    """Centre of the spectrum in Hz, and its flatness in [0, 1]: 1 is white noise."""
    power = np.abs(np.fft.rfft(waveform.astype(np.float64))) ** 2 + 1e-12
    frequencies = np.fft.rfftfreq(len(waveform), 1 / rate)
    bands: Sequence[float] = [part.mean() for part in np.array_split(power, min(64, len(power)))]
    flatness = np.exp(np.mean(np.log(bands))) / np.mean(bands)
    return round(float((power * frequencies).sum() / power.sum())), round(float(flatness), 4)


def _decibels(amplitude: float) -> float:
    return round(20 * float(np.log10(max(amplitude, 1e-6))), 1)
