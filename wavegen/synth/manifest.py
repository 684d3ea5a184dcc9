"""What a vocoder is to speak, one utterance a file: from a manifest, from files, and what of it is already there.

A manifest is JSON lines:

    {"id": "s1", "mel": "mels/s1.npy", "speaker": "anna", "seed": 3, "temperature": 0.8}
    {"id": "s2", "like": "recordings/s2.flac"}
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from wavegen.audio import mel_files, wav
from wavegen.audio.atomic import atomic_write
from wavegen.errors import BadInputError, WavegenError, did_you_mean

MANIFEST = "manifest.jsonl"
MAX_NAME_BYTES = 200  # file systems end at 255; the rest is for endings and for the file half written
AUDIO_ENDINGS = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".au", ".w64")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Utterance:
    """One clip for a vocoder.

    Attributes:
        id: its name, and but for odd characters that of its file.
        mel: file of its mel spectrogram, or None.
        like: recording to be spoken again, or None; just one of the two is given.
        speaker: for a model of several; None takes the one given for all.
        seed: in [0, 2**64).
        temperature, min_p: None takes those given for all.
        text: what is said, for the reader of the manifest.
        error: why it cannot be spoken, found while it was read.
    """

    id: str
    mel: Path | None = None
    like: Path | None = None
    speaker: str | None = None
    seed: int | None = None
    temperature: float | None = None
    min_p: float | None = None
    text: str | None = None
    error: WavegenError | None = field(default=None, compare=False)

    @property
    def source(self) -> Path:
        """The file it is made of."""
        path = self.mel or self.like
        assert path is not None
        return path

    @property
    def stream(self) -> int:
        """Of the random numbers: utterances of one seed differ by their id."""
        return int.from_bytes(hashlib.sha256(self.id.encode()).digest()[:4], "big")

    @property
    def file_name(self) -> str:
        """Such as s1.wav; what a file system or a shell may trip over becomes a dash."""
        return re.sub(r"^\.|[^\w.-]", "-", self.id) + ".wav"


KEYS = tuple(part.name for part in fields(Utterance) if part.name != "error")


def read_manifest(path: Path) -> list[Utterance]:
    """The utterances of a manifest, paths relative to its folder; a line that is wrong is one with an error.

    Raises:
        BadInputError: there is no such file, or no line in it.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInputError(f"the manifest {path} cannot be read: {error.strerror or error}") from error
    lines = [(number, line) for number, line in enumerate(content.split(b"\n"), 1) if line.strip()]
    if not lines:
        raise BadInputError(f'the manifest {path} is empty; a line is {{"id": "s1", "mel": "s1.npy"}}')
    return unique(_utterance(line, number, path.parent) for number, line in lines)


def from_files(paths: Sequence[Path], kind: str) -> list[Utterance]:
    """An utterance for each file and for each file right in a folder, named as the file is.

    Args:
        kind: "mel" for spectrograms, "like" for recordings.

    Raises:
        BadInputError: a folder without such a file.
    """
    found: list[Path] = []
    endings = mel_files.ENDINGS if kind == "mel" else AUDIO_ENDINGS
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(file for file in path.iterdir() if file.suffix.lower() in endings
                        and not file.name.startswith(".") and file.is_file())
        if not inside:
            raise BadInputError(f"{path} holds no file for --{kind}: none ends in {', '.join(endings)}")
        found += inside
    # A name that is no text in the file system's encoding is still a name here.
    names = [os.fsencode(path.stem).decode(errors="replace") for path in found]
    return unique(Utterance(name, mel=path) if kind == "mel" else Utterance(name, like=path)
                  for name, path in zip(names, found, strict=True))


def unique(utterances: Iterable[Utterance]) -> list[Utterance]:
    """All of them; one whose file another has already taken gets an error."""
    taken: dict[str, str] = {}
    result: list[Utterance] = []
    for utterance in utterances:
        name = utterance.file_name
        if utterance.error is None and name in taken:
            reason = f'{name} is taken by an earlier utterance, "{taken[name]}"; give each an id of its own'
            utterance = _wrong(f"{utterance.id}#{len(result) + 1}", reason)
        elif utterance.error is None:
            taken[name] = utterance.id
        result.append(utterance)
    return result


class Ledger:
    """The manifest of a folder of clips: what was written, how, and whether it is still there.

    A line is appended as each clip is done, so that nothing is lost with a run that is killed; `close` brings the
    lines into the order of the utterances. Lines of other utterances stay.
    """

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            WavegenError: the folder cannot be made.
        """
        self.folder, self.path = folder, folder / MANIFEST
        self._is_new, self._is_first = not folder.exists(), not self.path.exists()
        self._is_short = False
        self._rows: dict[str, dict[str, Any]] = {}  # by id, or by path where a clip has none
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lines = self.path.read_bytes().split(b"\n") if self.path.exists() else []
        except OSError as error:
            raise WavegenError(f"{folder} cannot be used: {error.strerror or error}") from error
        for line in lines:
            with suppress(ValueError):  # the last may be cut short
                row = json.loads(line)
                if isinstance(row, dict) and isinstance(name := row.get("id", row.get("path")), str):
                    self._rows[name] = row

    def rows(self) -> list[dict[str, Any]]:
        """What is said of all clips, in their order."""
        return list(self._rows.values())

    def row(self, name: str) -> dict[str, Any] | None:
        """What is said of a clip, by its id or its path."""
        return self._rows.get(name)

    def verified(self, id: str, asked: dict[str, Any]) -> dict[str, Any] | None:
        """The row of a clip that is there, whole, and was asked for in the same words; else None."""
        row = self._rows.get(id)
        if row is None or "error" in row or any(row.get(name) != value for name, value in asked.items()):
            return None
        try:
            path = self.folder / row["path"]
            size = wav.HEADER_BYTES + 2 * int(row["num_samples"])
            if path.stat().st_size != size or file_digest(path) != row["sha256"]:
                return None
            with path.open("rb") as file:
                whole = file.read(wav.HEADER_BYTES) == wav.wav_header(int(row["sample_rate"]), int(row["num_samples"]))
        except (OSError, KeyError, TypeError, ValueError):
            return None
        return row if whole else None

    def add(self, row: dict[str, Any]) -> None:
        """Note what became of an utterance, at once."""
        name = row["id"] if "id" in row else row["path"]
        self._rows[name] = row
        line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
        try:
            with self.path.open("ab") as file:
                # A line that a killed run left half written ends here.
                file.write(line if file.tell() == 0 or self._ends_with_newline() else b"\n" + line)
        except OSError as error:
            if not self._is_short:
                logger.warning("%s: the line of %s, and perhaps of others, was not written: %s", self.path, name,
                               error.strerror or error)
            self._is_short = True  # told once; `close` tries again, and says so if it fails too

    def drop(self, name: str) -> None:
        """Forget a clip."""
        self._rows.pop(name, None)

    def close(self, order: Sequence[str]) -> None:
        """Write all lines anew: first the others, then these utterances in their order.

        Raises:
            WavegenError: the file cannot be written; the appended lines are still there.
        """
        if not any("error" not in row for row in self._rows.values()) and self._is_first:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)
                if self._is_new:
                    self.folder.rmdir()
            return
        mine = set(order)
        others = [row for name, row in self._rows.items() if name not in mine]
        rows = [*others, *(self._rows[id] for id in dict.fromkeys(order) if id in self._rows)]
        with atomic_write(self.path) as file:
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())

    def _ends_with_newline(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes.

    Raises:
        BadInputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror or error}") from error


def _utterance(line: bytes, number: int, folder: Path) -> Utterance:
    try:
        row = json.loads(line)
        json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair is JSON, and text nowhere else
    except (ValueError, RecursionError) as error:
        return _wrong(f"line {number}", f"line {number} of the manifest is not JSON: {error}")
    if not isinstance(row, dict):
        return _wrong(f"line {number}", f'line {number} of the manifest is no object such as {{"id": .., "mel": ..}}')
    row = {name: value for name, value in row.items() if value is not None}
    id = row.get("id")
    if not isinstance(id, str) or not id:
        return _wrong(f"line {number}", f'line {number} of the manifest has no "id", a text that names the clip')
    unknown = [name for name in row if name not in KEYS]
    if unknown:
        return _wrong(id, f'line {number} of the manifest has "{unknown[0]}"; {did_you_mean(unknown[0], KEYS)}')
    if ("mel" in row) == ("like" in row):
        return _wrong(id, f'line {number} of the manifest must name a file under "mel" or under "like", one of them')
    wanted: dict[str, tuple[type, ...]] = {"mel": (str,), "like": (str,), "speaker": (str, int), "seed": (int,),
                                           "temperature": (int, float), "min_p": (int, float), "text": (str,)}
    for name, kinds in wanted.items():
        if name in row and (isinstance(row[name], bool) or not isinstance(row[name], kinds) or "\0" in str(row[name])):
            return _wrong(id, f'line {number} of the manifest has "{name}": {json.dumps(row[name])}, which is no '
                              f"{'number' if name in ('seed', 'temperature', 'min_p') else 'text'}")
    if len(id.encode()) > MAX_NAME_BYTES:
        return _wrong(id, f"line {number} of the manifest has an id of {len(id.encode())} bytes; "
                          f"at most {MAX_NAME_BYTES} make a file name")
    for name in ("mel", "like"):
        if name in row:
            row[name] = folder / row[name]
    if "speaker" in row:
        row["speaker"] = str(row["speaker"])
    return Utterance(**row)


def _wrong(id: str, reason: str) -> Utterance:
    return Utterance(id, error=BadInputError(reason))
