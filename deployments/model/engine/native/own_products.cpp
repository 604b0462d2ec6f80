// Matrix products in place of llama.cpp's, for processors with AVX-512.
//
// A step of an engine with few rows reads all weights once: it can take no less time than that reading, and llama.cpp's
// products take longer. It reads several rows of BF16 weights at a time, a pattern that the processor does not
// recognise, so that reading and computing follow each other; weights of 4 or 8 bits it unpacks again for each column,
// or a few. Here weights are asked for one line of cache after another, ahead of where they are needed (tiles.h), and
// unpacked once for all columns (quantised.h). Each number is summed in the same order, whatever the number of columns:
// it does not depend on what else is in a step.
//
// The library stands in for llama.cpp's `llamafile_sgemm`: loaded before, and for all to see, it is what the dynamic
// linker finds first.

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>

#include <dlfcn.h>

#include "llama.h"

#if defined(__x86_64__) && (defined(__clang__) || __GNUC__ >= 10)
#define HAS_KERNELS 1
#include <immintrin.h>
// Only the kernels use what not every processor has.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512bf16,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512bf16,f16c")
#endif
#include "bf16.h"
#include "quantised.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

namespace {

bool has_kernels() {
#ifdef HAS_KERNELS
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512bf16");
#else
    return false;
#endif
}

bool is_on = has_kernels();
std::atomic<int64_t> products{0};

// llama.cpp's own functions, those of the library that `caller` is in.
llama_functions functions_of(const void *caller) {
    Dl_info library;
    void *handle = dladdr(caller, &library) ? dlopen(library.dli_fname, RTLD_NOW | RTLD_NOLOAD) : nullptr;
    const auto find = [handle](const char *name) {
        void *found = handle ? dlsym(handle, name) : nullptr;
        if (!found) {
            fprintf(stderr, "own_products.so: this llama.cpp has no %s; it was written for the pinned version\n", name);
            abort();
        }
        return found;
    };
    return {(sgemm_function *)find("llamafile_sgemm"), (void (*)(threadpool *))find("ggml_barrier"),
            (void (*)(threadpool *, int))find("ggml_threadpool_chunk_set"),
            (int (*)(threadpool *, int))find("ggml_threadpool_chunk_add")};
}

}  // namespace

#define EXPORTED extern "C" __attribute__((visibility("default")))

// Whether this processor can run the kernels, and the compiler knew them.
EXPORTED bool rustygpt_has_kernels() { return has_kernels(); }

// Whether products are made here from now on, where the processor can. Not while something is computed.
EXPORTED void rustygpt_switch(bool on) { is_on = on && has_kernels(); }

// Number of products made here.
EXPORTED int64_t rustygpt_products() { return products; }

// C[column][row] is the product of row m of A with row n of B, each of k blocks (of one number, if the type has none).
// False: llama.cpp has another way, or asks again with values of another type.
EXPORTED bool llamafile_sgemm(const compute_params *params, int64_t m, int64_t n, int64_t k, const void *A,
                              int64_t lda, const void *B, int64_t ldb, void *C, int64_t ldc, int a_type, int b_type,
                              int c_type) {
    static const llama_functions llama = functions_of(__builtin_return_address(0));
#ifdef HAS_KERNELS
    const auto computed = [&](auto weights, auto values, int64_t numbers) {
        if (params->thread == 0) products.fetch_add(1, std::memory_order_relaxed);
        product<decltype(weights), decltype(values)> work{numbers, weights, values, (float *)C, ldc};
        multiply(llama, *params, m, n, work);
        return true;
    };
    if (is_on && c_type == F32) {
        if (a_type == BF16 && b_type == BF16 && k % LANES == 0)
            return computed(bf16_weights{(const bf16 *)A, lda}, bf16_values{(const bf16 *)B, ldb}, k);
        const f32_values values{(const float *)B, ldb};
        if (a_type == Q4_1 && b_type == F32)
            return computed(quantised_weights<q4_1_block>{(const q4_1_block *)A, lda}, values, k * LANES);
        if (a_type == Q8_0 && b_type == F32)
            return computed(quantised_weights<q8_0_block>{(const q8_0_block *)A, lda}, values, k * LANES);
    }
#endif
    return llama.sgemm(params, m, n, k, A, lda, B, ldb, C, ldc, a_type, b_type, c_type);
}
