#!/usr/bin/env bash
# All measurements of one GPU, in one command on a bare box with torch and nvcc:
#
#     benchmarks/gpu.sh OUTPUT [--minutes 25] [--device cuda|cpu] [--tiny] [--only PREFIX]
#
# Makes a virtual environment in OUTPUT/venv that sees the torch that is installed, builds the kernels for the GPU that
# is there, then runs `python -m benchmarks.gpu`. Run again it goes on where it stopped. Needs Python 3.11 or 3.12 with
# torch, and for the kernels nvcc. Variables:
#
#     PYTHON     the Python that has torch                     (python3)
#     WHEELS     a folder of wheels, where there is no network (none: from the index)
#     PREPARED   a Python that has the project already: no environment is made, and nothing is built
set -euo pipefail

[ $# -ge 1 ] || { sed -n '2,5p' "$0" | cut -c3-; exit 2; }
output=$(mkdir -p "$1" && cd "$1" && pwd)
shift
cd "$(dirname "$0")/.."

if [ -n "${PREPARED:-}" ]; then
    python=$PREPARED
else
    python=$output/venv/bin/python
    if [ ! -e "$output/venv/.installed" ]; then
        "${PYTHON:-python3}" -c 'import sys, torch; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' ||
            { echo "${PYTHON:-python3} is not Python 3.11 or 3.12 with torch: set PYTHON"; exit 2; }
        "${PYTHON:-python3}" -m venv --system-site-packages "$output/venv"
        source=()
        [ -n "${WHEELS:-}" ] && source=(--no-index --find-links "$WHEELS")
        # The torch that is there stays: it fits the driver.
        "$python" -c 'import torch; print(f"torch=={torch.__version__}")' > "$output/torch.txt"
        # 9.0 → 90a, whose instructions the kernels use; 8.0 → 80
        architecture=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader --id=0 2>/dev/null | tr -d '. \n' || true)
        [ "$architecture" = 90 ] && architecture=90a
        options=()
        [ -n "$architecture" ] && options=(-C "cmake.define.AQUILA_CUDA_ARCHITECTURES=$architecture")
        command -v nvcc >/dev/null || [ ! -x /usr/local/cuda/bin/nvcc ] || PATH=/usr/local/cuda/bin:$PATH
        "$python" -m pip install --quiet "${source[@]}" 'scikit-build-core>=0.11' 'pybind11>=3,<4' cmake ninja
        "$python" -m pip install --quiet "${source[@]}" -c "$output/torch.txt" --no-build-isolation "${options[@]}" \
            -e . pytest hypothesis scipy matplotlib
        touch "$output/venv/.installed"
    fi
fi

exec "$python" -W ignore -m benchmarks.gpu "$output" "$@"
