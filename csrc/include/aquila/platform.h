// What lets one header serve g++ and nvcc.

#ifndef AQUILA_PLATFORM_H
#define AQUILA_PLATFORM_H

// `static`: the CPU sources are compiled for several instruction sets, and the linker must not let code for the widest
// stand in for the others'.
#if defined(__CUDACC__)
#define AQUILA_HD static __host__ __device__ inline
#else
#define AQUILA_HD static inline
#endif

#endif
