// What llama.cpp passes to a product, and what it needs of llama.cpp: as in the pinned version
// (ggml/src/ggml-cpu/llamafile/sgemm.h and ggml/src/ggml-cpu/ggml-cpu-impl.h there).

#pragma once

#include <cstddef>
#include <cstdint>

struct threadpool;

struct compute_params {
    int thread, threads;
    size_t work_size;
    void *work;
    threadpool *pool;
    bool reference;
};

using sgemm_function = bool(const compute_params *, int64_t m, int64_t n, int64_t k, const void *A, int64_t lda,
                            const void *B, int64_t ldb, void *C, int64_t ldc, int a_type, int b_type, int c_type);

struct llama_functions {
    sgemm_function *sgemm;
    void (*barrier)(threadpool *);
    void (*chunk_set)(threadpool *, int);
    int (*chunk_add)(threadpool *, int);
};

// ggml's numbers of types.
constexpr int F32 = 0, Q4_1 = 3, Q8_0 = 8, BF16 = 30;
