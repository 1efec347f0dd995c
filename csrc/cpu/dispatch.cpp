// Which row kernels run here: the widest that machine and build share, or the one asked for.

#include <cstring>

#include "aquila/api.h"
#include "rows.h"

namespace aquila {
namespace {

struct Candidate {
    const InstructionSet& kernels;
    bool runs_here;
};

const InstructionSet* find(const char* name) {
    const Candidate candidates[] = {
#if defined(AQUILA_X86_64)
        {avx512::kernels, __builtin_cpu_supports("x86-64-v4") != 0},
        {avx2::kernels, __builtin_cpu_supports("x86-64-v3") != 0},
#endif
        {baseline::kernels, true},
    };
    for (const Candidate& candidate : candidates)
        if (candidate.runs_here && (name == nullptr || std::strcmp(name, candidate.kernels.name) == 0))
            return &candidate.kernels;
    return nullptr;
}

const InstructionSet*& chosen() {
    static const InstructionSet* set = find(nullptr);
    return set;
}

}  // namespace

const InstructionSet& instruction_set() { return *chosen(); }

}  // namespace aquila

const char* aquila_cpu_instruction_set() { return aquila::instruction_set().name; }

int aquila_cpu_use_instruction_set(const char* name) {
    const aquila::InstructionSet* set = aquila::find(name);
    if (set == nullptr) return AQUILA_BAD_ARGUMENT;
    aquila::chosen() = set;
    return AQUILA_OK;
}
