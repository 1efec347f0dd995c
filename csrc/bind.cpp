// megatron_aquila._kernels: the C API for Python. Addresses, strides and streams come in as integers.
//
// `device` −1 is the CPU, and `queue` then the number of threads; otherwise `queue` is the CUDA stream's address.

#include <pybind11/pybind11.h>

#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "aquila/api.h"

namespace {

void check(int status) {
    if (status != AQUILA_OK) throw std::runtime_error(std::string("_kernels: ") + aquila_status_text(status));
}

template <typename T = void>
T* pointer(uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

// Calls the CPU or the CUDA form of a function.
template <typename Cpu, typename Cuda>
void run(int device, Cpu&& cpu, Cuda&& cuda) {
    pybind11::gil_scoped_release released;
    if (device < 0)
        check(cpu());
    else
#if defined(AQUILA_WITH_CUDA)
        check(cuda());
#else
        throw std::runtime_error("_kernels was built without CUDA: reinstall where nvcc is found");
#endif
}

// Named only where they exist: a CPU build has no aquila_cuda_* to link.
#if defined(AQUILA_WITH_CUDA)
#define AQUILA_IF_CUDA(call) call
#else
#define AQUILA_IF_CUDA(call) AQUILA_BAD_ARGUMENT
#endif

int64_t first_wrong_target(
    int64_t rows, uintptr_t target_ids, int64_t target_stride, int64_t ignore_index, int64_t vocab_size) {
    const aquila_targets targets = {pointer<const int64_t>(target_ids), target_stride, ignore_index};
    return aquila_cpu_first_wrong_target(&targets, rows, vocab_size);
}

void token_stats(
    int device, uintptr_t queue, uintptr_t data, int64_t row_stride, int64_t rows, int64_t columns, int64_t width,
    int64_t first_column, int dtype, uintptr_t target_ids, int64_t target_stride, int64_t ignore_index,
    uintptr_t stats) {
    const aquila_logits logits = {pointer(data), row_stride, rows, columns, width, first_column, dtype};
    const aquila_targets targets = {pointer<const int64_t>(target_ids), target_stride, ignore_index};
    run(
        device, [&] { return aquila_cpu_token_stats(&logits, &targets, pointer(stats), int(queue)); },
        [&] {
            return AQUILA_IF_CUDA(
                aquila_cuda_token_stats(&logits, &targets, pointer(stats), device, pointer(queue)));
        });
}

void merge_stats(
    int device, uintptr_t queue, uintptr_t parts, int64_t count, int64_t rows, int dtype, uintptr_t target_ids,
    int64_t target_stride, int64_t ignore_index, int64_t vocab_size, bool finish, uintptr_t out) {
    const aquila_targets targets = {pointer<const int64_t>(target_ids), target_stride, ignore_index};
    run(
        device,
        [&] {
            return aquila_cpu_merge_stats(
                pointer(parts), count, rows, dtype, &targets, vocab_size, finish, pointer(out));
        },
        [&] {
            return AQUILA_IF_CUDA(aquila_cuda_merge_stats(
                pointer(parts), count, rows, dtype, &targets, vocab_size, finish, pointer(out), device,
                pointer(queue)));
        });
}

void token_gradient(
    int device, uintptr_t queue, uintptr_t data, int64_t row_stride, int64_t rows, int64_t columns, int64_t width,
    int64_t first_column, int dtype, uintptr_t target_ids, int64_t target_stride, int64_t ignore_index,
    uintptr_t state, uintptr_t grad, int64_t grad_stride, uintptr_t scale, uintptr_t out, int64_t out_row_stride) {
    const aquila_logits logits = {pointer(data), row_stride, rows, columns, width, first_column, dtype};
    const aquila_targets targets = {pointer<const int64_t>(target_ids), target_stride, ignore_index};
    run(
        device,
        [&] {
            return aquila_cpu_token_gradient(
                &logits, &targets, pointer(state), pointer(grad), grad_stride, pointer(scale), pointer(out),
                out_row_stride, int(queue));
        },
        [&] {
            return AQUILA_IF_CUDA(aquila_cuda_token_gradient(
                &logits, &targets, pointer(state), pointer(grad), grad_stride, pointer(scale), pointer(out),
                out_row_stride, device, pointer(queue)));
        });
}

void preference(
    int device, uintptr_t queue, uintptr_t logps, int64_t logps_stride, int64_t tokens, uintptr_t target_ids,
    int64_t target_stride, int64_t ignore_index, uintptr_t cu_seqlens, int64_t pair_count, uintptr_t reference,
    int loss, double beta, double label_smoothing, double margin, double sft_weight, bool length_normalised, int dtype,
    uintptr_t coefficients, uintptr_t sequences, uintptr_t pairs, uintptr_t totals, uintptr_t counter) {
    const aquila_targets targets = {pointer<const int64_t>(target_ids), target_stride, ignore_index};
    const aquila_preference_options options = {loss, beta, label_smoothing, margin, sft_weight, length_normalised};
    (void)counter;
    run(
        device,
        [&] {
            return aquila_cpu_preference(
                pointer(logps), logps_stride, tokens, &targets, pointer<const int64_t>(cu_seqlens), pair_count,
                pointer<const double>(reference), &options, dtype, pointer(coefficients), pointer<double>(sequences),
                pointer<double>(pairs), pointer<double>(totals));
        },
        [&] {
            return AQUILA_IF_CUDA(aquila_cuda_preference(
                pointer(logps), logps_stride, tokens, &targets, pointer<const int64_t>(cu_seqlens), pair_count,
                pointer<const double>(reference), &options, dtype, pointer(coefficients), pointer<double>(sequences),
                pointer<double>(pairs), pointer<double>(totals), pointer<uint32_t>(counter), device,
                pointer(queue)));
        });
}

void use_instruction_set(const std::string& name) {
    if (aquila_cpu_use_instruction_set(name.c_str()) != AQUILA_OK)
        throw std::invalid_argument(
            "no CPU kernels for the instruction set '" + name + "' here; there are avx512, avx2 and baseline, "
            "as far as the processor has them");
}

// A wish that cannot be granted is an error at import, not another instruction set in silence.
void heed_environment() {
    const char* wanted = std::getenv("AQUILA_INSTRUCTION_SET");
    if (wanted != nullptr && *wanted != 0) use_instruction_set(wanted);
}

int cuda_device_count() {
#if defined(AQUILA_WITH_CUDA)
    return aquila_cuda_device_count();
#else
    return 0;
#endif
}

}  // namespace

PYBIND11_MODULE(_kernels, module) {
    heed_environment();
    module.doc() = "Fused kernels; see megatron_aquila.kernels for their Python face.";
    module.def("first_wrong_target", &first_wrong_target);
    module.def("token_stats", &token_stats);
    module.def("merge_stats", &merge_stats);
    module.def("token_gradient", &token_gradient);
    module.def("preference", &preference);
    module.def("instruction_set", &aquila_cpu_instruction_set);
    module.def("use_instruction_set", &use_instruction_set);
    module.def("cuda_device_count", &cuda_device_count);
#if defined(AQUILA_WITH_CUDA)
    module.attr("with_cuda") = true;
    module.attr("cuda_architectures") = AQUILA_CUDA_ARCHITECTURES;
#else
    module.attr("with_cuda") = false;
    module.attr("cuda_architectures") = "";
#endif
}
