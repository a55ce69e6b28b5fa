#!/bin/sh
# Builds ggml with the part that `cargo xtask device-tests --ggml` packed, as `cargo xtask setup --ggml-device`
# does where there is Rust: of the sources beside this script, without network.
#
# Needs cmake 3.24, ninja or make, a compiler for C++, and the GPU's own tools: for CUDA nvcc and cuBLAS.
# From the environment:
#   GGML_BUILD                 the folder that is built in (ggml/build here); run.sh reads it too
#   CMAKE_CUDA_ARCHITECTURES   which GPU of NVIDIA's it is built for (90, Hopper)
#   GGML_CMAKE_ARGS            more arguments for cmake, such as where a library lies
#   CMAKE                      another cmake than the one on the PATH
set -eu
cd "$(dirname "$0")"
cmake=${CMAKE:-cmake}
build=${GGML_BUILD:-$PWD/ggml/build}
command -v "$cmake" >/dev/null || { echo "ggml is built with cmake, which is not on the PATH" >&2; exit 1; }
# Where NVIDIA puts nvcc, which is often not on the PATH.
export PATH="$PATH:${CUDA_PATH:-/usr/local/cuda}/bin"
if command -v ninja >/dev/null; then
    export CMAKE_GENERATOR="${CMAKE_GENERATOR:-Ninja}"
fi
# Unquoted, since each word of them is an argument.
"$cmake" -S ggml -B "$build" -DLLAMA_SOURCES="$PWD/ggml/sources" \
    -DCMAKE_CUDA_ARCHITECTURES="${CMAKE_CUDA_ARCHITECTURES:-90}" \
    $(cat ggml/options) ${GGML_CMAKE_ARGS:-}
"$cmake" --build "$build" --target whole --parallel "$(getconf _NPROCESSORS_ONLN)"
echo "built: $build/out"
