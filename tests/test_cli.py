"""The command line, as a child process: what it prints, and how it refuses."""

import subprocess
import sys
import typing

import pytest

from inception_tf import NETWORKS, recipes
from inception_tf.cli import main
from inception_tf.config import Model, TrainConfig
from inception_tf.errors import UserError


def _run(*arguments, **keywords):
    code = "import sys; from inception_tf.cli import main; main(sys.argv[1:])"
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        **keywords,
    )


@pytest.mark.parametrize("arguments", [("--help",), ("train", "--help")])
def test_help_reads_well_without_tensorflow_or_keras(arguments):
    code = (
        "import sys\nsys.modules['tensorflow'] = sys.modules['keras'] = None\n"
        "from inception_tf.cli import main\nmain(sys.argv[1:])"
    )
    process = subprocess.run([sys.executable, "-P", "-c", code, *arguments], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    if "train" in arguments:
        for flag in [
            "--model",
            "--data",
            "--policy",
            "--batch",
            "--steps",
            "--epochs",
            "--seed",
            "--run-dir",
            "--checkpoint-every",
            "--deterministic",
            "--resume",
            "--strategy",
        ]:
            assert flag in process.stdout
        assert all(name in "".join(process.stdout.split()).replace("│", "") for name in NETWORKS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "inception_v5"), ("--model", "inception_v5", "inception_v4")),
        (("--data", "imagenot"), ("--data", "imagenot", "digits")),
        (("--strategy", "horovod"), ("--strategy", "horovod", "mirrored")),
        (("--strategy", "tpu"), ("--strategy tpu", "TPU")),
        (("--policy", "int8"), ("--policy", "int8", "mixed_bfloat16")),
        (("--size", "74"), ("--size 74", "75")),
        (("--batch", "0"), ("--batch 0", "1")),
        (("--batch", "many"), ("--batch", "many", "int")),
        (("--epochs", "2", "--steps", "3"), ("--epochs 2", "--steps 3")),
        (("--learning-rate=-1",), ("--learning-rate -1", "positive")),
        (("--resume",), ("--resume", "--run-dir")),
        (("--tpu-name", "t", "--strategy", "mirrored"), ("--tpu-name t", "--strategy tpu")),
        (("--head-epochs", "2"), ("--head-epochs 2", "--weights")),
        (("--recipe", "fine-tune"), ("--head-epochs 1 of --recipe fine-tune", "--head-epochs 0")),
        (("--classes", "few"), ("--classes", "few", "auto")),
        (("--classes", "12"), ("--classes 12", "--data digits", "--classes 10")),
        (("--held-out", "1"), ("--held-out 1", "between 0 and 1")),
        (("--weights", "absent.keras"), ("--weights", "absent.keras")),
        (("--frobnicate",), ("--frobnicate",)),
    ],
)
def test_a_wrong_flag_is_one_sentence_and_status_2(arguments, words, tmp_path):
    process = _run("train", *arguments, cwd=tmp_path)
    assert process.returncode == 2
    (line,) = [line for line in process.stderr.splitlines() if line.startswith("inception-tf: ")]
    assert "Traceback" not in process.stderr
    assert all(word in line for word in words), line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["train", "study residual", "study scaling", "study averaging"])
def test_without_tensorflow_it_says_what_to_install(command, tmp_path):
    code = (
        "import importlib.util, sys\nfind = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'tensorflow' else find(name, *rest)\n"
        "sys.modules['tensorflow'] = None\n"
        "from inception_tf.cli import main\nmain(sys.argv[1:])"
    )
    arguments = [sys.executable, "-P", "-c", code, *command.split()]
    process = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path)
    assert process.returncode == 2
    name = command.split()[0]
    assert process.stderr.strip().startswith(f"inception-tf: {name} needs TensorFlow: pip install")


def test_a_study_has_no_flag_that_it_would_refuse(capsys):
    """`study scaling` trains for steps and knows no epochs."""
    with pytest.raises(SystemExit) as ended:
        main(["study", "scaling", "--epochs", "2"])
    assert ended.value.code == 2 and "Unknown option: --epochs" in capsys.readouterr().err


def test_models_prints_the_table():
    process = _run("models")
    assert process.returncode == 0, process.stderr
    lines = {line.split()[1]: line for line in process.stdout.splitlines() if "inception_" in line}
    assert list(lines) == list(NETWORKS)
    assert "42,711,400" in lines["inception_v4"] and "12.3 G" in lines["inception_v4"]
    assert "160x160" in lines["inception_resnet_v1_facenet"]


def test_the_flags_know_every_network_and_recipe():
    assert typing.get_args(Model) == tuple(NETWORKS)
    hints = typing.get_type_hints(TrainConfig)
    assert set(typing.get_args(hints["recipe"])) == {"auto", *recipes.RECIPES}


@pytest.mark.parametrize("field", ["model", "classes", "distortion", "recipe", "policy", "strategy"])
def test_python_is_refused_as_the_command_line_is(field):
    with pytest.raises(UserError, match=f"--{field} nonsense"):
        TrainConfig(**{field: "nonsense"})
