"""The code of the pages on text to speech runs as it stands, one block after the other.

Where a page would fetch a model from the network it is given a stand-in, and so are a toolkit that is not installed
and the sound card. Where transformers is installed the tutorial also runs with its real classes and random weights.
"""

from __future__ import annotations

import asyncio
import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import toolkits
import wavegen
from toolkits import SoundCard
from wavegen.config import MelSpec
from wavegen.errors import MissingBackendError
from wavegen.integrations.nemo import nemo_spec
from wavegen.integrations.torchaudio import import_torchaudio

DOCS = Path(__file__).resolve().parents[2] / "docs"
TOOLKITS = ("torchaudio", "transformers", "espnet", "speechbrain", "coqui", "nemo", "wyoming")  # each has a test below
PAGES = ("integrations", "tutorial_tts", *(f"integrations/{toolkit}" for toolkit in TOOLKITS))
MODELS: dict[str, str | MelSpec] = {
    "kathleen": "speecht5",
    "my-ljspeech": "tacotron2",
    "my-ljspeech-pwg": "pwg",
    "my-nemo": nemo_spec(toolkits.FastPitch.cfg.preprocessor),
}


def blocks(page: str, kind: str = "python") -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", (DOCS / f"{page}.md").read_text(), re.MULTILINE | re.DOTALL)


def run(page: str, **names) -> dict:
    """The names a page has defined in the end."""
    for number, block in enumerate(blocks(page), 1):
        exec(compile(block, f"{page}.md, block {number}", "exec"), names)
    return names


@pytest.fixture
def bare_desk(tmp_path, monkeypatch, vocoder_for):
    """An empty folder, tiny models under the names of the pages, a silent sound card."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(wavegen, "load", lambda name: vocoder_for(MODELS[name]), raising=False)
    toolkits.install(monkeypatch, sounddevice={"OutputStream": SoundCard})
    return SimpleNamespace(player=toolkits.put_player(tmp_path, monkeypatch), monkeypatch=monkeypatch)


@pytest.fixture
def desk(bare_desk):
    """The same, and a stand-in for every toolkit."""
    toolkits.install(
        bare_desk.monkeypatch,
        transformers={"SpeechT5Processor": toolkits.Processor, "SpeechT5ForTextToSpeech": toolkits.SpeechT5,
                      "FastSpeech2ConformerTokenizer": toolkits.Processor,
                      "FastSpeech2ConformerWithHifiGan": toolkits.FastSpeech2},
        espnet2__bin__tts_inference={"Text2Speech": toolkits.Text2Speech},
        speechbrain__inference__TTS={"Tacotron2": toolkits.SpeechBrainTacotron2},
        TTS__utils__synthesizer={"Synthesizer": toolkits.CoquiSynthesizer},
        nemo__collections__tts__models={"FastPitchModel": toolkits.FastPitch},
    )
    return bare_desk


def test_every_page_is_in_the_index_and_its_links_hold():
    index = (DOCS / "integrations.md").read_text()
    assert sorted(path.stem for path in (DOCS / "integrations").glob("*.md")) == sorted(TOOLKITS)
    for page in PAGES:
        assert page == "integrations" or f"]({page}.md)" in index
        for link in re.findall(r"\]\(([^)#]+)\)", (DOCS / f"{page}.md").read_text()):
            assert (DOCS / f"{page}.md").parent.joinpath(link).exists(), f"{page}.md links to {link}"
        assert all(line.startswith("pip install ") for block in blocks(page, "sh") for line in block.splitlines())


def test_integrations(desk, capsys):
    names = run("integrations")
    assert "fmin 80.0 against 0.0" in capsys.readouterr().out
    assert names["waveform"].shape == (2, 12 * 256) and not names["waveform"][1, 7 * 256 :].any()


def test_torchaudio(desk):
    try:
        import_torchaudio("the page")
    except MissingBackendError as error:
        pytest.skip(str(error))
    from torchaudio.pipelines import TACOTRON2_GRIFFINLIM_CHAR_LJSPEECH as bundle

    desk.monkeypatch.setattr(type(bundle), "get_tacotron2", lambda self: toolkits.TorchaudioTacotron2())
    names = run("integrations/torchaudio")
    assert names["lengths"].tolist() == [9 * 256, 8 * 256] and names["waveforms"].shape == (2, 9 * 256)


def test_transformers(desk):
    np.savez("feats_stats.npz", count=100, sum=np.full(80, -300.0), sum_square=np.full(80, 950.0))
    names = run("integrations/transformers")
    assert names["waveforms"].shape == (2, 9 * 256) and names["waveform"].shape == (1, 9 * 256)


@pytest.mark.parametrize("toolkit", ["espnet", "speechbrain", "coqui", "nemo"])
def test_espnet_speechbrain_coqui_nemo(toolkit, desk):
    names = run(f"integrations/{toolkit}")
    waveform = np.asarray(names.get("waveform", names.get("waveforms")))
    assert waveform.shape[-1] == 9 * 256 and waveform.any()


@pytest.mark.filterwarnings("ignore:'audioop' is deprecated")  # by wyoming itself
def test_wyoming(bare_desk):
    if importlib.util.find_spec("wyoming") is None:
        toolkits.install(bare_desk.monkeypatch, wyoming__audio=toolkits.WYOMING_AUDIO,
                         wyoming__tts=toolkits.WYOMING_TTS, wyoming__server={"AsyncEventHandler": object})
    mels = [toolkits.noise(frames, 80, seed=frames).numpy() for frames in (7, 5)]
    names = run("integrations/wyoming", text_to_mel=lambda text: iter(mels))
    events = []

    async def write_event(event):
        events.append(event)

    async def ignore(event):
        pass

    async def ask():
        handler = names["Speaker"].__new__(names["Speaker"])
        handler.write_event = write_event
        # Another request at the same time, in a thread of its own, changes nothing.
        await asyncio.gather(
            names["speak"]("", lambda text: iter(mels[::-1]), ignore),
            handler.handle_event(names["Synthesize"](text="two sentences").event()))

    asyncio.run(ask())
    assert [event.type for event in events][:: len(events) - 1] == ["audio-start", "audio-stop"]
    assert len(events) > 3 and events[1].data["rate"] == 16000
    whole = names["voc"](np.concatenate(mels)[None], layout="BTC").waveform[0]
    assert b"".join(event.payload for event in events[1:-1]) == names["pcm16"](whole)


def check_tutorial(names: dict, player: Path) -> None:
    voc, audio = names["voc"], names["audio"]
    assert Path("sentence.wav").stat().st_size > 1000
    assert audio.waveform.shape == (1, len(names["mel"]) * 256)
    # What the sound card was given last came frame by frame, and is what the whole mel gives.
    assert sum(map(len, SoundCard.played)) == names["stream"].num_samples > 0
    torch.manual_seed(0)
    spoken = [len(mel) * 256 for mel in names["mels"](names["text"])]
    assert player.stat().st_size == 2 * sum(spoken)
    torch.manual_seed(0)
    pieces = list(names["frames"]("A few words."))
    parts = voc.stream(spec="speecht5", layout="TC")
    streamed = np.concatenate([*map(parts.push, pieces), parts.finish()])
    assert len(pieces) > 1 and np.array_equal(streamed, voc(torch.cat(pieces)[None], layout="BTC").waveform[0])


def test_tutorial_tts(desk, capsys):
    names = run("tutorial_tts")
    assert "times real time" in capsys.readouterr().out
    check_tutorial(names, desk.player)


def test_tutorial_tts_with_the_real_speecht5(bare_desk):
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install transformers")
    model = toolkits.random_speecht5(transformers)
    bare_desk.monkeypatch.setattr(transformers.SpeechT5Processor, "from_pretrained", toolkits.Processor.from_pretrained)
    bare_desk.monkeypatch.setattr(transformers.SpeechT5ForTextToSpeech, "from_pretrained", lambda name: model)
    names = run("tutorial_tts")
    check_tutorial(names, bare_desk.player)
    torch.manual_seed(0)
    mel = next(names["mels"]("A few words."))
    torch.manual_seed(0)
    assert torch.allclose(torch.cat(list(names["frames"]("A few words."))), mel, atol=1e-5)
