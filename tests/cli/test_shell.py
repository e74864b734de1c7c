"""Exit codes and error lines: what a script sees of every way a command can end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from visionkit import __version__, errors
from visionkit.cli import cli, commands
from visionkit.cli.shell import run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def command(monkeypatch):
    """Put `body` behind the command `try`, as a module of the table."""

    def put(body):
        module = types.ModuleType("tests_try_command")
        module.command = click.command(body)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(commands.COMMANDS, "try", (module.__name__, "Try."))

    return put


def raising(error):
    def body():
        """Raise."""
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (errors.VisionkitError("odd", "It broke."), 1, "visionkit: error[odd]: It broke."),
        (errors.UsageError("no-box", "Give --box."), 2, "visionkit: error[no-box]: Give --box."),
        (errors.InputError("no-frames", "x.mp4 is empty."), 3, "visionkit: error[no-frames]: x.mp4 is empty."),
        (errors.ModelError("hash-mismatch", "Other file."), 5, "visionkit: error[hash-mismatch]: Other file."),
        (errors.OutputError("disk-full", "No room."), 6, "visionkit: error[disk-full]: No room."),
        (errors.SourceLostError("source-lost", "Gone."), 7, "visionkit: error[source-lost]: Gone."),
        (errors.RecipeError("card-invalid", "Bad."), 8, "visionkit: error[card-invalid]: Bad."),
        (KeyboardInterrupt(), 130, "visionkit: error[interrupted]: Stopped by Ctrl-C."),
        (click.UsageError("Not so."), 2, "visionkit: error[usage]: Not so. See `visionkit try --help`."),
        (
            ZeroDivisionError("by 0"),
            1,
            "visionkit: error[bug]: ZeroDivisionError: by 0 "
            "(a fault of visionkit, not yours; --debug for the traceback)",
        ),
    ],
)
def test_each_failure_has_its_code_and_one_line(command, capsys, error, code, line):
    command(raising(error))
    assert run(["try"]) == code
    assert capsys.readouterr() == ("", line + "\n")


def test_debug_shows_the_traceback_wherever_it_stands(command, capsys):
    command(raising(errors.InputError("odd", "It broke.")))
    for argv in (["--debug", "try"], ["try", "--debug"]):
        assert run(argv) == 3
        told = capsys.readouterr().err
        assert "Traceback (most recent call last)" in told
        assert told.endswith("visionkit: error[odd]: It broke.\n")


def test_a_message_stays_one_line_without_controls(command, capsys):
    command(raising(errors.InputError("odd", "a\nb \x1b[31mred\x1b[0m \udcff \u202e end")))
    assert run(["try"]) == 3
    assert capsys.readouterr().err == "visionkit: error[odd]: a b \\x1b[31mred\\x1b[0m \\xff \\u202e end\n"


def test_a_returned_integer_is_the_exit_code(command):
    command(lambda: 4)
    assert run(["try"]) == 4


def test_a_closed_pipe_is_silent(command, capsys):
    command(raising(BrokenPipeError(32, "Broken pipe")))
    stdout = os.dup(1)
    try:
        assert run(["try"]) == 141
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
    assert capsys.readouterr().err == ""


def test_click_runner_meets_the_same_codes():
    result = CliRunner().invoke(cli, ["models", "show", "no_such_model"])
    assert result.exit_code == 5
    assert result.stderr.startswith("visionkit: error[unknown-model]: There is no model 'no_such_model'.")
    result = CliRunner().invoke(cli, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"visionkit, version {__version__}\n")


def test_a_mistyped_command_and_option_are_told_the_near_one(capsys):
    assert run(["modles", "list"]) == 2
    assert capsys.readouterr().err == (
        "visionkit: error[usage]: No such command 'modles'. Did you mean 'models'? See `visionkit --help`.\n"
    )
    assert run(["models", "list", "--jsn"]) == 2
    assert capsys.readouterr().err == (
        "visionkit: error[usage]: No such option '--jsn'. Did you mean '--json'? See `visionkit models list --help`.\n"
    )


def test_a14_a_file_with_a_dash_is_told_the_double_dash(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("-dash.mp4").write_bytes(b"")
    assert run(["inspect", "-dash.mp4"]) == 2
    assert capsys.readouterr().err == (
        "visionkit: error[usage]: No such option '-d'. If you mean the file '-dash.mp4', put `--` before it: "
        "`visionkit … -- -dash.mp4`.\n"
    )
    assert run(["inspect", "-other.mp4"]) == 2
    assert "put `--`" not in capsys.readouterr().err


def test_no_command_prints_the_help_page(capsys):
    assert run([]) == 0
    assert "Usage: visionkit" in capsys.readouterr().out


def test_every_row_of_the_table_is_a_command_with_examples():
    for name, (module, line) in commands.COMMANDS.items():
        command = cli.get_command(click.Context(cli), name)
        assert isinstance(command, click.Command), module
        assert line.endswith("."), name
        assert command.help, name
        assert command.epilog, name
        assert "\n  visionkit " in command.epilog, name


def shell(*args, **options):
    return subprocess.run(
        [sys.executable, "-m", "visionkit", *args], cwd=ROOT, capture_output=True, text=True, timeout=60, **options
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_stdout_is_an_output_error():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "visionkit", "models", "list"],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 6
    assert done.stderr == "visionkit: error[stdout-failed]: stdout took no more: No space left on device.\n"


def test_a_reader_that_leaves_ends_the_run_silently():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "visionkit", "models", "list"],
        cwd=ROOT,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


SLEEPER = """
import sys, time, types, click
from visionkit.cli import commands, main
def body():
    "Sleep."
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("cleaned up", flush=True)
module = types.ModuleType("sleeper"); module.command = click.command(body)
sys.modules["sleeper"] = module
commands.COMMANDS["sleep"] = ("sleeper", "Sleep.")
main(["sleep"])
"""


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGTERM, 143, "visionkit: error[terminated]: Stopped by SIGTERM.\n"),
        (signal.SIGINT, 130, "visionkit: error[interrupted]: Stopped by Ctrl-C.\n"),
    ],
)
def test_a_signal_lets_the_command_clean_up(number, code, line):
    child = subprocess.Popen(
        [sys.executable, "-c", SLEEPER],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell starts background jobs with SIGINT ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert child.stdout.readline() == "ready\n"
    time.sleep(0.1)
    child.send_signal(number)
    out, err = child.communicate(timeout=30)
    assert (child.returncode, out, err) == (code, "cleaned up\n", line)


def test_a_machine_without_libgl_is_told_the_remedy(tmp_path):
    fake = tmp_path / "cv2" / "__init__.py"
    fake.parent.mkdir()
    fake.write_text('raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")\n')
    (tmp_path / "clip.mp4").write_bytes(b"x" * 100)
    done = shell(
        "inspect", str(tmp_path / "clip.mp4"), env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    )
    assert done.returncode == 1
    assert done.stderr.startswith(
        "visionkit: error[opencv-needs-libgl]: OpenCV cannot start: this machine has no libGL"
    )
    assert "apt-get install -y libgl1" in done.stderr
    assert "opencv-python-headless>=5.0,<5.1" in done.stderr
    assert done.stderr.count("\n") == 1
