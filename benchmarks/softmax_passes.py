# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Two-pass (arXiv 2001.04438) against online softmax on materialised rows, in one run.

    python benchmarks/softmax_passes.py --device cuda
    python benchmarks/softmax_passes.py --device cpu      one thread; needs a C compiler, cc

The paper's gain is on CPUs, where exp is dear; a GPU may as well be bound by instruction issue.
On a CPU both are compiled from softmax_passes.c for that processor, where a compiler is found, and
the plain torch twins are timed on the smallest shape.
Prints the best time of several rounds taken in turn, the share of the copy of the same bytes
(a row read once and written once; both algorithms read twice), and the largest relative error.
"""

from __future__ import annotations

import argparse
import ctypes
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from lightning_losses.kernels.study import softmax_passes as two_pass

SHAPES = {
    "cuda": [(8192, 128256), (8192, 50304), (32768, 4096)],
    "cpu": [(64, 32000), (16, 128256), (4096, 1000)],
}
ROUNDS = 20
WIDTH = 512  # of the hidden states whose product with a head makes such logits


def compiled() -> dict[str, Callable[[Tensor], Tensor]]:
    """Both loops as the machine's C compiler makes them; nothing where there is none."""
    compiler = shutil.which("cc")
    if compiler is None:
        print("no C compiler (cc) was found: the plain torch twins alone")
        return {}
    library = Path(tempfile.mkdtemp()) / "softmax_passes.so"
    flags = ["-O3", "-march=native", "-ffast-math", "-shared", "-fPIC", "-o", str(library)]
    source = Path(__file__).with_suffix(".c")
    subprocess.run([compiler, *flags, str(source), "-lm"], check=True)
    loaded = ctypes.CDLL(str(library))

    def called(name: str) -> Callable[[Tensor], Tensor]:
        def run(z: Tensor) -> Tensor:
            y = torch.empty_like(z)
            pointers = (ctypes.c_void_p(x.data_ptr()) for x in (z, y))
            getattr(loaded, name)(*pointers, *(ctypes.c_long(size) for size in z.shape))
            return y

        return run

    return {"two-pass (C)": called("two_pass"), "three-pass (C)": called("three_pass")}


def methods(device: str, small: bool) -> dict[str, Callable[[Tensor], Tensor]]:
    if device == "cpu":
        twins = {"two-pass (twin)": two_pass.two_pass, "online (twin)": two_pass.online}
        ours = compiled() | (twins if small else {})
    else:
        from lightning_losses.kernels.study import softmax_passes_triton as softmax_passes_triton

        ours = {"two-pass": softmax_passes_triton.two_pass, "online": softmax_passes_triton.online}
    return {"copy": torch.clone, "torch": lambda z: z.softmax(1)} | ours


def milliseconds(f: Callable[[Tensor], Tensor], z: Tensor) -> float:
    if z.device.type == "cpu":
        start = time.perf_counter()
        f(z)
        return 1e3 * (time.perf_counter() - start)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    f(z)
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))


def worst(f: Callable[[Tensor], Tensor], z: Tensor) -> float:
    """Largest relative error of a probability of at least 1e-6, in the first rows."""
    z = z[:64]
    right = z.double().softmax(1)
    wrong = (f(z).double() - right).abs() / right
    return float(wrong[right >= 1e-6].max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu"
    print(f"torch {torch.__version__}, {name}")
    dtypes = [torch.float32] if arguments.device == "cpu" else [torch.bfloat16, torch.float32]
    for shape in SHAPES[arguments.device]:
        for dtype in dtypes:
            z = 3 * torch.randn(shape, device=arguments.device, dtype=dtype)
            found = methods(arguments.device, small=shape == SHAPES["cpu"][0])
            times: dict[str, list[float]] = {key: [] for key in found}
            for f in found.values():  # compile
                f(z)
            if arguments.device == "cpu":
                hidden, head = torch.randn(shape[0], WIDTH), torch.randn(shape[1], WIDTH)
                found["head's product"] = lambda z, h=hidden, w=head: h @ w.T
                times["head's product"] = []
            for _ in range(ROUNDS):
                for key, f in found.items():
                    times[key].append(milliseconds(f, z))
            best = {key: min(values) for key, values in times.items()}
            print(f"\n{shape} {str(dtype).removeprefix('torch.')}")
            print(f"{'':18}{'ms':>9}{'of copy':>9}{'error':>10}")
            for key, f in found.items():
                error = "" if key in ("copy", "head's product") else f"{worst(f, z):.1e}"
                print(f"{key:18}{best[key]:9.3f}{best[key] / best['copy']:9.2f}{error:>10}")
    if arguments.device == "cpu":
        print("\nThe twins are plain torch, a kernel an operation: they say what is computed.")


if __name__ == "__main__":
    main()
