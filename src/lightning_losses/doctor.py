# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`lightning-losses doctor`: what is installed, which kernel runs here, and what is wrong with it.

Every finding names what to do. What is only missing is said once, beside what it is for.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import torch

from lightning_losses.softmax import describe_kernel

NEEDED = ("torch", "lightning", "torchmetrics", "hydra-core", "wandb")
#: Distribution -> what it is for.
USEFUL = {
    "triton": "the fused kernels, on CUDA",
    "vl-convert-python": "pictures: pip install 'lightning-losses[report]'",
    "wandb-workspaces": "`push`: pip install 'lightning-losses[wandb]'",
    "pillow": "pictures in W&B: pip install 'lightning-losses[wandb]'",
}


def examine() -> int:
    """Print what is found; 1 if something will not work, else 0."""
    print(f"lightning-losses {installed('lightning-losses') or 'from its source folder'}")
    print(f"Python {platform.python_version()} on {platform.platform()}")
    for name in NEEDED:
        print(f"  {name:20} {installed(name) or 'missing'}")
    for name, purpose in USEFUL.items():
        print(f"  {name:20} {installed(name) or f'not installed; for {purpose}'}")
    for line in devices():
        print(line)
    print(f"kernel: {describe_kernel()}")
    found = list(problems())
    for line in found:
        print(f"! {line}")
    print(f"{len(found) or 'No'} problem{'' if len(found) == 1 else 's'} found.")
    return 1 if found else 0


def installed(name: str) -> str | None:
    """The version of a distribution."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def devices() -> Iterator[str]:
    """A line for every accelerator, or for the CPU."""
    for index in range(torch.cuda.device_count()):
        this = torch.cuda.get_device_properties(index)
        memory = this.total_memory / 2**30
        yield f"device: {this.name}, sm_{this.major}{this.minor}, {memory:.0f} GiB"
    if torch.backends.mps.is_available():
        yield "device: Apple MPS; chunked and reference run there, Triton does not"
    yield f"device: CPU, {torch.get_num_threads()} threads, {os.cpu_count()} cores"


def problems() -> Iterator[str]:
    """What will not work, and what to do."""
    for name in NEEDED:
        if installed(name) is None:
            yield f"{name} is missing: pip install {name}"
    for name, ending in (("kernels", "dispatch.py"), ("conf", "loss")):
        folder = os.path.join(os.path.dirname(__file__), name)
        if not os.path.exists(os.path.join(folder, ending)):
            yield (
                f"{folder} is no folder: git wrote the link as a file. Say `git config "
                "core.symlinks true && git checkout -- src`; on Windows with Developer Mode on."
            )
    if torch.version.cuda is None and shutil.which("nvidia-smi"):
        yield (
            f"there is an NVIDIA driver, but torch {torch.__version__} was built without CUDA: "
            "install torch as pytorch.org says for your CUDA version."
        )
    if torch.cuda.is_available() and find_spec("triton") is None:
        yield "there is a CUDA device but no triton, so large heads run chunked: pip install triton"
    if os.environ.get("TRITON_INTERPRET") == "1":
        yield (
            "TRITON_INTERPRET=1: Triton kernels are interpreted, slowly, and bfloat16 is computed "
            "wrongly. Unset it outside of tests."
        )
    if shutil.which("c++") is None and shutil.which("cl") is None:
        yield "no C++ compiler, which torch.compile needs on a CPU: install g++ or clang."
    if not _hydra_finds_us():
        yield (
            "Hydra does not find the configs: add to the primary config `hydra.searchpath: "
            "[pkg://lightning_losses.conf]`."
        )


def _hydra_finds_us() -> bool:
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    found = Plugins.instance().discover(SearchPathPlugin)
    return any(one.__name__ == "LightningLossesSearchPath" for one in found)
