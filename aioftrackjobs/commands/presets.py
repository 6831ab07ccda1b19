"""Presets: the lines with which well-known programs say how far they are. Data, no code.

A line counts only if the program is known to write it: "50%" alone is no progress.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Preset:
    """The lines of one program.

    A pattern has one of these groups, or several:

    - ``percent``: from 0 to 100;
    - ``total``, with ``done``, ``left``, or ``nth`` for the one that it works on: counts;
    - ``at``: the number of the frame that the program works on;
    - ``finished``: the number of a frame that is finished;
    - for ffmpeg, ``microseconds`` or ``clock`` (``0:00:07.5``) of the film that is written, the
      ``count`` of its frames, the ``length`` of the film that is read, and ``end``.

    Attributes:
        program: What writes the lines.
        source: Where the patterns come from.
        needles: Texts of which each line that counts has at least one: they are searched first.
        patterns: Regular expressions, of which the first one that is found counts.
        of_frame: Whether a percentage is that of one frame, if there are several.
    """

    __slots__ = ("needles", "of_frame", "patterns", "program", "source")

    def __init__(
        self,
        program: str,
        source: str,
        needles: Sequence[str],
        *patterns: str,
        of_frame: bool = True,
    ) -> None:
        self.program: str = program
        self.source: str = source
        self.needles: tuple[str, ...] = tuple(needles)
        self.patterns: tuple[str, ...] = patterns
        self.of_frame: bool = of_frame


_PERCENT = r"(?P<percent>\d{1,3}(?:\.\d+)?)"
_COUNT = r"(?P<done>\d+)\s*/\s*(?P<total>\d+)"
_BLENDER_FRAME = r"^Fra:\s*(?P<at>-?\d+)\b"
_BLENDER = "deadline-cloud-for-blender, and Blender's own output"

_ALFRED = Preset(
    "programs that report to Tractor or Alfred, such as husk -Va",
    "ALF_PROGRESS: deadline-cloud-for-houdini; TR_PROGRESS: Tractor's user guide",
    ("ALF_PROGRESS", "TR_PROGRESS"),
    rf"\b(?:ALF|TR)_PROGRESS\s+{_PERCENT}\s*%",
)

PRESETS = {
    "alfred": _ALFRED,
    "arnold": Preset(
        "kick, and Arnold inside of Maya and Houdini",
        "deadline-cloud-for-maya; OpenCue, eta.py",
        ("% done",),
        rf"\b{_PERCENT}% done\b",
    ),
    "cycles": Preset(
        "Blender with Cycles",
        _BLENDER,
        ("Fra:", "Sample ", "Rendered "),
        rf"(?:{_BLENDER_FRAME}.*?)?\b(?:Sample|Rendered)\s+{_COUNT}",
        _BLENDER_FRAME,
    ),
    "eevee": Preset(
        "Blender with EEVEE",
        _BLENDER,
        ("Fra:", "Rendering "),
        rf"(?:{_BLENDER_FRAME}.*?)?\bRendering\s+{_COUNT} samples",
        _BLENDER_FRAME,
    ),
    "ffmpeg": Preset(
        "ffmpeg, with or without -progress pipe:1",
        "ffmpeg's documentation of -progress; out_time_ms counts microseconds, too",
        ("out_time_", "progress=end", "time=", "Duration: ", "frame="),
        r"^out_time_(?:us|ms)=(?P<microseconds>\d+)$",
        r"^progress=(?P<end>end)$",
        r"^frame=\s*(?P<count>\d+)$",
        r"^(?:frame|size)=.*\btime=(?P<clock>\d+:\d\d:\d\d(?:\.\d+)?)",
        r"^\s*Duration: (?P<length>\d+:\d\d:\d\d(?:\.\d+)?),",
        of_frame=False,
    ),
    "husk": _ALFRED,
    "maya": Preset(
        "Maya's batch renderer",
        "deadline-cloud-for-maya",
        ("[PROGRESS]",),
        rf"\[PROGRESS\]\s*{_PERCENT}\s*(?:percent|%)",
    ),
    "nuke": Preset(
        "nuke -x and nuke -t",
        "Writing: deadline-cloud-for-nuke; Frame: Nuke's own output",
        ("Frame ", "Writing "),
        r"^Frame (?P<at>-?\d+) \((?P<nth>\d+) of (?P<total>\d+)\)",
        r"^Writing .*?(?<!\d)(?P<finished>\d+)\.\w+ took\b",
        of_frame=False,
    ),
    "redshift": Preset("Redshift", "Redshift's own output", ("Block ",), rf"\bBlock {_COUNT}\b"),
    "renderman": Preset(
        "prman -Progress",
        "deadline-cloud-for-maya",
        ("R90000",),
        rf"\bR90000\s+{_PERCENT}\s*%",
    ),
    "rsync": Preset(
        "rsync --info=progress2, and rsync --progress",
        "rsync's manual",
        ("%", "-chk="),
        r"\((?:xfr#\d+, )?(?:to|ir)-chk=(?P<left>\d+)/(?P<total>\d+)\)",
        of_frame=False,
    ),
    "tqdm": Preset(
        "programs that use tqdm",
        "tqdm 4, format_meter",
        ("%|",),
        rf"(?:^|[\s:]){_PERCENT}%\|",
        of_frame=False,
    ),
    "tractor": _ALFRED,
}

#: rsync --info=progress2 shows the percentage of all files; --progress that of each file.
RSYNC_WHOLE = Preset(
    PRESETS["rsync"].program,
    PRESETS["rsync"].source,
    ("%",),
    rf"^\s*[\d.,]+[KMGTP]?\s+{_PERCENT}%\s+\S+/s\b",
    of_frame=False,
)
