// Matrix products in place of llama.cpp's, for processors with AVX-512.
//
// A step of an engine with few rows reads all weights once: it can take no less time than that reading, and llama.cpp's
// products take longer. For BF16 it reads several rows of weights at a time, a pattern that the processor does not
// recognise, so that reading and computing follow each other; 4-bit weights it unpacks again for each column. Here
// weights are asked for one line of cache after another, ahead of where they are needed (tiles.h), and unpacked once
// for all columns (q4_1.h). Each number is summed in the same order, whatever the number of columns: it does not depend
// on what else is in a step.
//
// The library stands in for llama.cpp's `llamafile_sgemm`: loaded before, and for all to see, it is what the dynamic
// linker finds first.

#include <atomic>
#include <cstdlib>

#include <dlfcn.h>

#include "llama.h"

#if defined(__x86_64__) && (defined(__clang__) || __GNUC__ >= 10)
#define HAS_KERNELS 1
#include <cstring>
#include <immintrin.h>
#include <type_traits>
// Only the kernels use what not every processor has.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512bf16,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512bf16,f16c")
#endif
#include "bf16.h"
#include "q4_1.h"
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
        if (!found) abort();  // another llama.cpp than the pinned one
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
    const bool is_own = is_on && c_type == F32;
    // One column: llama.cpp reads one row of weights after another, which is as fast.
    const bool is_bf16 = is_own && a_type == BF16 && b_type == BF16 && n > 1 && k % LANES == 0;
    const bool is_q4_1 = is_own && a_type == Q4_1 && b_type == F32;
    if ((is_bf16 || is_q4_1) && params->thread == 0) products.fetch_add(1, std::memory_order_relaxed);
    if (is_bf16) {
        const bf16_weights weights{(const bf16 *)A, lda};
        const bf16_values values{(const bf16 *)B, ldb};
        multiply(llama, *params, m, n, product<bf16_weights, bf16_values>{k, weights, values, (float *)C, ldc});
        return true;
    }
    if (is_q4_1) {
        const q4_1_weights weights{(const q4_1_weights::block *)A, lda};
        const f32_values values{(const float *)B, ldb};
        multiply(llama, *params, m, n, product<q4_1_weights, f32_values>{k * LANES, weights, values, (float *)C, ldc});
        return true;
    }
#endif
    return llama.sgemm(params, m, n, k, A, lda, B, ldb, C, ldc, a_type, b_type, c_type);
}
