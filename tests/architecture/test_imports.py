"""Who imports whom, and what a look at the command line costs."""

import subprocess
import sys
import time
import tomllib

import pytest

LONGVIT = "from longvit.cli.app import main; main()"
RUN = "from longvit.cli.app import run_command; run_command"
WITHOUT_TORCH = {
    "longvit --help": f"{RUN}(['--help'])",
    "longvit tile --help": f"{RUN}(['tile', '--help'])",
    "longvit finetune --help": f"{RUN}(['finetune', '--help'])",
    "longvit.cli.app": "import longvit.cli.app",
    "longvit.evaluation.evaluate": "import longvit.evaluation.evaluate",
    "longvit.viewer.view": "import longvit.viewer.view",
    "preprocessing.tile": "import preprocessing.tile",
}


def test_the_contracts_of_pyproject_hold(root):
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", code, "--no-cache", "--no-logo"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert f"{len(contracts)} kept, 0 broken" in result.stdout


@pytest.mark.parametrize("code", WITHOUT_TORCH.values(), ids=WITHOUT_TORCH)
def test_torch_is_not_loaded_by(code, python):
    said = python(f"{code}\nimport sys\nprint('loaded:', 'torch' in sys.modules)")
    assert said.splitlines()[-1] == "loaded: False"


def test_the_check_for_torch_would_see_it(python):
    assert python("import longvit.model, sys; print('torch' in sys.modules)") == "True\n"


def test_a_bad_request_is_refused_without_torch(python):
    code = (
        "import sys\nfrom longvit.cli.app import run_command\n"
        "try: run_command(['pretrain', '--bogus', '1'])\n"
        "except Exception as error: print(type(error).__name__, 'torch' in sys.modules)"
    )
    assert python(code) == "ConfigError False\n"


def test_help_answers_in_three_seconds(root):
    def seconds() -> float:
        start = time.monotonic()
        said = subprocess.run(
            [sys.executable, "-c", LONGVIT, "--help"], capture_output=True, text=True, check=True, cwd=root
        )
        assert "pretrain" in said.stdout
        return time.monotonic() - start

    assert min(seconds(), seconds()) < 3  # the first may pay for a cold disk
