// Runs the threads of a block as fibers. In a file of its own: the compiler must not see that a barrier leaves the
// kernels' shared variables alone, since other fibers run inside it.

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "cuda_runtime.h"

dim3 gridDim, blockDim, blockIdx, threadIdx;

// Weak: nothing need be shared.
extern "C" __attribute__((weak)) unsigned char __start_aquila_shared[], __stop_aquila_shared[];

namespace emulation {
namespace {

constexpr size_t stack_bytes = 128 << 10;
constexpr unsigned max_block_threads = 1024;
constexpr int devices = 8;

enum class State { ready, at_barrier, in_warp, done };

struct Fiber {
    State state;
    dim3 index;
    const char* file;  // of the barrier where it waits
    int line;
    unsigned exchanges;  // how many it has entered
    bool started = false;
    // A context to begin with, then long jumps: those need no system call.
    ucontext_t context;
    jmp_buf resume;
    std::unique_ptr<char[]> stack;
};

struct Warp {
    unsigned arrived, completed;  // in the exchange under way; exchanges until now
    size_t size;
    // Two sets of slots: a lane may enter the next exchange before the others have read this one.
    unsigned char slots[2][32][8];
};

std::vector<Fiber> fibers(max_block_threads);
std::vector<Warp> warps(max_block_threads / 32);
std::vector<unsigned char> dynamic_memory;
const std::function<void()>* kernel;
jmp_buf scheduler;
unsigned running, block_threads;
int schedule_seed, current_device;
cudaError_t last_error = cudaSuccess;

void yield(State state) {
    fibers[running].state = state;
    if (!_setjmp(fibers[running].resume)) _longjmp(scheduler, 1);
}

void fiber_main() {
    for (;;) {
        (*kernel)();
        yield(State::done);
    }
}

void resume(unsigned thread) {
    Fiber& fiber = fibers[thread];
    running = thread;
    threadIdx = fiber.index;
    fiber.state = State::ready;
    if (_setjmp(scheduler)) return;
    if (fiber.started) _longjmp(fiber.resume, 1);
    fiber.started = true;
    fiber.stack = std::make_unique<char[]>(stack_bytes);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = stack_bytes;
    makecontext(&fiber.context, fiber_main, 0);
    setcontext(&fiber.context);
}

void arrange(std::vector<unsigned>& order, std::mt19937& random) {
    if (schedule_seed == 1) std::reverse(order.begin(), order.end());
    if (schedule_seed > 1) std::shuffle(order.begin(), order.end(), random);
}

unsigned count(State state) {
    return static_cast<unsigned>(std::count_if(
        fibers.begin(), fibers.begin() + block_threads, [&](const Fiber& fiber) { return fiber.state == state; }));
}

// Returns false once all threads are done.
bool release_barrier() {
    const unsigned done = count(State::done), waiting = count(State::at_barrier);
    if (done == block_threads) return false;
    const auto first = std::find_if(
        fibers.begin(), fibers.begin() + block_threads, [](const Fiber& f) { return f.state == State::at_barrier; });
    if (waiting < block_threads) {
        fail("divergence: of %u threads %u wait at the barrier of line %d, %u for their warp, %u have ended",
             block_threads, waiting, waiting ? first->line : 0, count(State::in_warp), done);
    }
    for (unsigned i = 0; i < block_threads; ++i) {
        if (fibers[i].line != first->line || strcmp(fibers[i].file, first->file)) {
            fail("divergence: threads 0 and %u wait at the barriers of lines %d and %d",
                 i, first->line, fibers[i].line);
        }
        fibers[i].state = State::ready;
    }
    return true;
}

void run_block(std::mt19937& random) {
    if (__start_aquila_shared) memset(__start_aquila_shared, 0xff, __stop_aquila_shared - __start_aquila_shared);
    std::fill(dynamic_memory.begin(), dynamic_memory.end(), 0xff);
    for (unsigned i = 0; i < block_threads; ++i) {
        fibers[i].state = State::ready;
        fibers[i].exchanges = 0;
        fibers[i].index = dim3(i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y);
    }
    for (Warp& warp : warps) warp = {};
    std::vector<unsigned> order(block_threads);
    do {
        std::iota(order.begin(), order.end(), 0u);
        arrange(order, random);
        for (bool progress = true; progress;) {
            progress = false;
            for (const unsigned i : order) {
                const Fiber& fiber = fibers[i];
                const bool exchanged = fiber.state == State::in_warp && fiber.exchanges <= warps[i / 32].completed;
                if (fiber.state != State::ready && !exchanged) continue;
                resume(i);
                progress = true;
            }
        }
    } while (release_barrier());
}

}  // namespace

void fail(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("CUDA emulation: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    abort();
}

void block_barrier(const char* file, int line) {
    fibers[running].file = file;
    fibers[running].line = line;
    yield(State::at_barrier);
}

int lane() { return static_cast<int>(running % 32); }

int lanes() { return static_cast<int>(std::min(32u, block_threads - running / 32 * 32)); }

void warp_exchange(unsigned mask, const void* mine, void* theirs, size_t size, int source) {
    Warp& warp = warps[running / 32];
    if (mask != 0xffffffffu) fail("a warp operation of mask %x: only whole warps are emulated", mask);
    if (warp.arrived > 0 && warp.size != size) {
        fail("divergence: lanes of a warp shuffle %zu and %zu bytes", warp.size, size);
    }
    warp.size = size;
    auto& slots = warp.slots[fibers[running].exchanges++ % 2];
    memcpy(slots[lane()], mine, size);
    if (++warp.arrived == static_cast<unsigned>(lanes())) {
        warp.arrived = 0;
        ++warp.completed;
    } else {
        yield(State::in_warp);
    }
    memcpy(theirs, slots[source], size);
}

unsigned char* dynamic_shared() { return dynamic_memory.data(); }

void launch(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& body) {
    const uint64_t threads = static_cast<uint64_t>(block.x) * block.y * block.z;
    const uint64_t blocks = static_cast<uint64_t>(grid.x) * grid.y * grid.z;
    if (threads == 0 || threads > max_block_threads || blocks == 0) {
        last_error = cudaErrorInvalidConfiguration;
        return;
    }
    kernel = &body;
    gridDim = grid;
    blockDim = block;
    block_threads = static_cast<unsigned>(threads);
    dynamic_memory.resize(shared_bytes);
    std::mt19937 random(static_cast<unsigned>(schedule_seed));
    std::vector<unsigned> order(blocks);
    std::iota(order.begin(), order.end(), 0u);
    arrange(order, random);
    for (const unsigned i : order) {
        blockIdx = dim3(i % grid.x, i / grid.x % grid.y, i / grid.x / grid.y);
        run_block(random);
    }
}

}  // namespace emulation

cudaError_t cudaGetLastError() { return std::exchange(emulation::last_error, cudaSuccess); }

cudaError_t cudaGetDevice(int* device) {
    *device = emulation::current_device;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
    if (device < 0 || device >= emulation::devices) return emulation::last_error = cudaErrorInvalidDevice;
    emulation::current_device = device;
    return cudaSuccess;
}

// The order of fibers and blocks: 0 ascending, 1 descending, otherwise the seed of a shuffle at every barrier.
extern "C" void aquila_emulation_schedule(int seed) { emulation::schedule_seed = seed; }

extern "C" int aquila_emulation_current_device() { return emulation::current_device; }
