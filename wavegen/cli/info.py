"""wavegen info: what works here, or what a model is."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from wavegen.cli.options import Json, Verbose, print_json


def info(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="A bundled model or a model folder.")] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Import torch and torchaudio to be sure; takes seconds.")
    ] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show versions, engines and bundled models, or the facts of one model."""
    from wavegen.info import describe_installation, describe_model

    facts = describe_installation(full) if model is None else describe_model(model)
    if json:
        print_json(facts)
    else:
        print("\n".join(_installation(facts) if model is None else _model(facts)))


def _installation(facts: dict[str, Any]) -> list[str]:
    cpu = facts["cpu"]
    lines = [
        f"wavegen {facts['wavegen']}, Python {facts['python']}, {facts['platform']}",
        f"cpu: {cpu['name']}, {cpu['cores']} usable core(s), {' '.join(cpu['vectors']) or 'no vector unit'}",
        "packages: " + ", ".join(f"{name} {found or '(none)'}" for name, found in facts["packages"].items()),
        "engines:",
    ]
    lines += [f"  {name}: {_usable(state)}" for name, state in facts["engines"].items()]
    lines.append(f"torchaudio: {_usable(facts['torchaudio'])}")
    lines.append(f"bundled models: {', '.join(facts['models']) or 'none'}")
    return lines


def _usable(state: dict[str, Any]) -> str:
    if not state["usable"]:
        return f"not usable: {state['reason']}"
    return f"usable ({state['note']})" if state.get("note") else "usable"


def _model(facts: dict[str, Any]) -> list[str]:
    lines = [
        f"{facts['name']}: {facts['family']}, {facts['parameters']:,} parameters, {facts['bytes']:,} bytes",
        f"path: {facts['path']}",
        f"audio: {facts['sample_rate']} Hz, {facts['quantization_channels']} mu-law codes ({facts['codec']})",
    ]
    for name in ("labels", "speakers"):
        if facts[name]:
            lines.append(f"{name}: {', '.join(facts[name])}")
    if facts["seconds"]:
        lines.append(f"usual length: {facts['seconds'][0]} to {facts['seconds'][1]} s")
    if "num_samples" in facts:
        lines.append(f"clips: {facts['num_samples']} samples, {facts['num_samples'] / facts['sample_rate']:.3f} s")
    if "receptive_field" in facts:
        lines.append(
            f"receptive field: {facts['receptive_field']} samples, "
            f"{facts['receptive_field'] / facts['sample_rate']:.3f} s"
        )
    if "vocoder" in facts:
        lines += _vocoder(facts["vocoder"])
    lines += [f"training, {key}: {value}" for key, value in facts["training"].items()]
    measured = facts["calibration"]
    if measured is not None:
        costs = ", ".join(f"{name} {figures['kl']:.1e}" for name, figures in measured["precisions"].items())
        lines.append(f"KL from float64 per sample: {costs}; --precision auto takes up to {measured['limit']:g}")
    return lines


def _vocoder(facts: dict[str, Any]) -> list[str]:
    mel, preset = facts["mel"], facts["mel_preset"]
    logarithm = "ln" if mel["log_base"] == "e" else "log10"
    frames = "centred" if mel["center"] else f"{mel['edge_padding']} samples padded"
    normalised = "" if (mel["mean"], mel["scale"]) == ([0.0], [1.0]) else ", normalised"
    path = facts["signal_path"] + (f" of order {facts['lpc_order']}" if facts["lpc_order"] else "")
    drawn = facts["sampling"]
    return [
        f"mel: {f'preset {preset}, ' if preset else 'no preset, '}{mel['n_mels']} bands of {mel['fmin']:g} to "
        f"{mel['fmax'] or mel['sample_rate'] / 2:g} Hz at {mel['sample_rate']} Hz, n_fft {mel['n_fft']}, hop "
        f"{mel['hop_length']}, window {mel['win_length']} ({mel['window']}), {frames}, {mel['pad_mode']}",
        f"mel values: {logarithm} of magnitude^{mel['power']:g}, floor {mel['floor']:g}, {mel['mel_scale']} scale, "
        f"norm {mel['norm']}{normalised}",
        f"signal path: {path}, pre-emphasis {facts['preemphasis']:g}",
        f"look-ahead: {facts['lookahead_frames']} frame{'s' * (facts['lookahead_frames'] != 1)} of "
        f"{facts['frame_ms']:g} ms, {facts['lookahead_ms']:g} ms",
        f"sampling: temperature {drawn['temperature']:g}, min_p {drawn['min_p']:g}, matching {drawn['matching']}",
    ]
