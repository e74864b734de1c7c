"""Images, video in and out, live streams, and the files of results."""

from visionkit.io.encoder_trials import EncoderStatus, available_encoders
from visionkit.io.encoders import CODECS, video_suffix
from visionkit.io.files import check_output
from visionkit.io.images import read_image
from visionkit.io.report import MediaInfo, ReadReport, Source
from visionkit.io.results import JsonlWriter, frame_row, read_results, write_json
from visionkit.io.run_folder import RunFolder
from visionkit.io.source import open_source
from visionkit.io.text import original_name, printable_name, safe_text
from visionkit.io.video_write import VideoWriter

__all__ = [
    "CODECS",
    "EncoderStatus",
    "JsonlWriter",
    "MediaInfo",
    "ReadReport",
    "RunFolder",
    "Source",
    "VideoWriter",
    "available_encoders",
    "check_output",
    "frame_row",
    "open_source",
    "original_name",
    "printable_name",
    "read_image",
    "read_results",
    "safe_text",
    "video_suffix",
    "write_json",
]
