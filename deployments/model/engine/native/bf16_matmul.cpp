// Matrix products of BF16 weights for processors with AVX512_BF16, in place of llama.cpp's.
//
// A step of an engine with few rows reads all weights once: it can take no less time than that reading. llama.cpp's
// product (tinyBLAS) reads several rows of weights at a time, a pattern that the processor does not recognise, so that
// reading and computing follow each other. Here the weights are asked for one line of cache after another, ahead of
// where they are needed and into the second cache, which has room for more outstanding reads than the first.
//
// Each number is summed in the same order, whatever the number of rows: it does not depend on what else is in a step.
// One row alone is left to llama.cpp, which reads one row of weights at a time for it.
//
// The library stands in for llama.cpp's `llamafile_sgemm`: loaded before, and for all to see, it is what the dynamic
// linker finds first. The interface is that of the pinned version (ggml/src/ggml-cpu/llamafile/sgemm.h and
// ggml/src/ggml-cpu/ggml-cpu-impl.h there).

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include <dlfcn.h>

#if defined(__x86_64__) && (defined(__clang__) || __GNUC__ >= 10)
#define HAS_KERNEL 1
#include <immintrin.h>
#endif

namespace {

struct threadpool;

struct compute_params {
    int thread, threads;
    size_t work_size;
    void *work;
    threadpool *pool;
    bool reference;
};

using sgemm_function = bool (*)(const compute_params *, int64_t, int64_t, int64_t, const void *, int64_t,
                                const void *, int64_t, void *, int64_t, int, int, int);

struct llama_functions {
    sgemm_function sgemm;
    void (*barrier)(threadpool *);
    void (*chunk_set)(threadpool *, int);
    int (*chunk_add)(threadpool *, int);
};

llama_functions llama;

bool has_kernel() {
#ifdef HAS_KERNEL
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bf16");
#else
    return false;
#endif
}

bool is_on = has_kernel();
std::atomic<int64_t> products{0};

#ifdef HAS_KERNEL

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bf16"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bf16")
#endif

// Loops over registers: otherwise GCC keeps them in memory.
#if defined(__clang__)
#define UNROLLED _Pragma("clang loop unroll(full)")
#else
#define UNROLLED _Pragma("GCC unroll 16")
#endif

using bf16 = uint16_t;

constexpr int F32 = 0, BF16 = 30;  // ggml's numbers of types
constexpr int LANES = 32;          // of BF16 in a register
constexpr int64_t LINE = 64;       // bytes of the cache
constexpr int64_t AHEAD = 16384;   // bytes between a line that is needed and the one that is asked for
// A tile's sums are 16 registers of 32.
constexpr int ROWS = 4, COLUMNS = 4;
// Small matrices are divided evenly, each thread reading one piece. The threads share a larger one, or many columns,
// in parts: one that is held up leaves the rest to the others. Parts with many columns fit into the second cache.
constexpr int64_t EVEN_BYTES = 8 << 20, EVEN_COLUMNS = 128;
constexpr int64_t PART_ROWS = 256, PART_ROWS_OF_MANY_COLUMNS = 64, PART_COLUMNS = 128;

// A register whose lane i is the sum of the i-th of 16 registers, but for the order of lanes (`LANE`).
__attribute__((always_inline)) inline __m512 sums(const __m512 *v) {
    __m512 a[8], b[4], c[2];
    UNROLLED
    for (int i = 0; i < 8; i++)
        a[i] = _mm512_add_ps(_mm512_shuffle_f32x4(v[i], v[i + 8], 0x44), _mm512_shuffle_f32x4(v[i], v[i + 8], 0xEE));
    UNROLLED
    for (int i = 0; i < 4; i++)
        b[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a[i], a[i + 4], 0x88), _mm512_shuffle_f32x4(a[i], a[i + 4], 0xDD));
    UNROLLED
    for (int i = 0; i < 2; i++)
        c[i] = _mm512_add_ps(_mm512_shuffle_ps(b[i], b[i + 2], 0x44), _mm512_shuffle_ps(b[i], b[i + 2], 0xEE));
    return _mm512_add_ps(_mm512_shuffle_ps(c[0], c[1], 0x88), _mm512_shuffle_ps(c[0], c[1], 0xDD));
}

constexpr int LANE[16] = {0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15};

// C[column][row] for R rows of A and N of B, each of k numbers. For each line of a row, `Asked` lines are asked for,
// from `next` on.
template <int R, int N, int Asked>
void tile(int64_t k, const bf16 *A, int64_t lda, const bf16 *B, int64_t ldb, float *C, int64_t ldc, const char *next) {
    __m512 sum[16];
    UNROLLED
    for (int i = 0; i < 16; i++) sum[i] = _mm512_setzero_ps();
    for (int64_t i = 0; i < k; i += LANES) {
        UNROLLED
        for (int line = 0; line < Asked; line++, next += LINE) _mm_prefetch(next, _MM_HINT_T1);
        __m512bh a[R];
        UNROLLED
        for (int r = 0; r < R; r++) a[r] = (__m512bh)_mm512_loadu_si512(A + r * lda + i);
        UNROLLED
        for (int n = 0; n < N; n++) {
            const __m512bh b = (__m512bh)_mm512_loadu_si512(B + n * ldb + i);
            UNROLLED
            for (int r = 0; r < R; r++) sum[n * R + r] = _mm512_dpbf16_ps(sum[n * R + r], a[r], b);
        }
    }
    alignas(64) float found[16];
    _mm512_store_ps(found, sums(sum));
    UNROLLED
    for (int lane = 0; lane < 16; lane++)
        if (const int i = LANE[lane]; i < R * N) C[i / R * ldc + i % R] = found[lane];
}

struct product {
    int64_t k;
    const bf16 *A;
    int64_t lda;
    const bf16 *B;
    int64_t ldb;
    float *C;
    int64_t ldc;

    template <int R, int N>
    void one(int64_t row, int64_t column, int asked, const char *next) const {
        const bf16 *a = A + row * lda, *b = B + column * ldb;
        float *c = C + column * ldc + row;
        switch (asked) {
            case 4: return tile<R, N, 4>(k, a, lda, b, ldb, c, ldc, next);
            case 2: return tile<R, N, 2>(k, a, lda, b, ldb, c, ldc, next);
            case 1: return tile<R, N, 1>(k, a, lda, b, ldb, c, ldc, next);
            default: return tile<R, N, 0>(k, a, lda, b, ldb, c, ldc, next);
        }
    }

    // R rows with all columns. The first tiles ask for the R rows that come AHEAD later, as far as they are this
    // thread's.
    template <int R>
    void rows(int64_t row, int64_t column, int64_t column_end, const char *last) const {
        const char *next = (const char *)(A + row * lda) + AHEAD;
        const int64_t tiles = (column_end - column + COLUMNS - 1) / COLUMNS;
        const int each = tiles == 1 ? R : tiles < R ? R / 2 : 1;
        for (int left = next < last ? R : 0; column < column_end; column += COLUMNS) {
            const int asked = left > 0 ? each : 0;
            switch (column_end - column) {
                case 1: one<R, 1>(row, column, asked, next); break;
                case 2: one<R, 2>(row, column, asked, next); break;
                case 3: one<R, 3>(row, column, asked, next); break;
                default: one<R, COLUMNS>(row, column, asked, next);
            }
            left -= asked;
            next += asked * k * int64_t(sizeof(bf16));
        }
    }

    void part(int64_t row, int64_t row_end, int64_t column, int64_t column_end) const {
        const char *last = (const char *)(A + row_end * lda);
        for (; row + ROWS <= row_end; row += ROWS) rows<ROWS>(row, column, column_end, last);
        for (; row < row_end; row++) rows<1>(row, column, column_end, last);
    }
};

// One thread's share of m rows of weights with n columns.
void multiply(const compute_params &params, int64_t m, int64_t n, const product &work) {
    const bool is_shared = n > EVEN_COLUMNS || m * work.k * int64_t(sizeof(bf16)) > EVEN_BYTES;
    const int64_t even = ((m + params.threads - 1) / params.threads + ROWS - 1) / ROWS * ROWS;
    const int64_t part = !is_shared ? even : n > EVEN_COLUMNS ? PART_ROWS_OF_MANY_COLUMNS : PART_ROWS;
    const int64_t down = (m + part - 1) / part, across = (n + PART_COLUMNS - 1) / PART_COLUMNS;
    if (is_shared) {
        if (params.thread == 0) llama.chunk_set(params.pool, params.threads);
        llama.barrier(params.pool);
    }
    for (int64_t job = params.thread; job < down * across;) {
        const int64_t row = job % down * part, column = job / down * PART_COLUMNS;
        work.part(row, row + part < m ? row + part : m, column,
                  column + PART_COLUMNS < n ? column + PART_COLUMNS : n);
        job = is_shared ? llama.chunk_add(params.pool, 1) : job + params.threads;
    }
    if (is_shared) llama.barrier(params.pool);
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif  // HAS_KERNEL

// llama.cpp's own functions, those of the library that `caller` is in.
llama_functions functions_of(const void *caller) {
    Dl_info library;
    void *handle = dladdr(caller, &library) ? dlopen(library.dli_fname, RTLD_NOW | RTLD_NOLOAD) : nullptr;
    const auto find = [handle](const char *name) {
        void *found = handle ? dlsym(handle, name) : nullptr;
        if (!found) abort();  // another llama.cpp than the pinned one
        return found;
    };
    return {(sgemm_function)find("llamafile_sgemm"), (void (*)(threadpool *))find("ggml_barrier"),
            (void (*)(threadpool *, int))find("ggml_threadpool_chunk_set"),
            (int (*)(threadpool *, int))find("ggml_threadpool_chunk_add")};
}

}  // namespace

extern "C" {

// Whether this processor can run the kernel and the compiler knew it.
bool rustygpt_has_kernel() { return has_kernel(); }

// Whether products are made here from now on, where the processor can. Not while something is computed.
void rustygpt_switch(bool on) { is_on = on && has_kernel(); }

// Number of products made here.
int64_t rustygpt_products() { return products; }

bool llamafile_sgemm(const compute_params *params, int64_t m, int64_t n, int64_t k, const void *A, int64_t lda,
                     const void *B, int64_t ldb, void *C, int64_t ldc, int a_type, int b_type, int c_type) {
    static const llama_functions found = llama = functions_of(__builtin_return_address(0));
#ifdef HAS_KERNEL
    if (is_on && n > 1 && a_type == BF16 && b_type == BF16 && c_type == F32 && k % LANES == 0) {
        if (params->thread == 0) products.fetch_add(1, std::memory_order_relaxed);
        multiply(*params, m, n, {k, (const bf16 *)A, lda, (const bf16 *)B, ldb, (float *)C, ldc});
        return true;
    }
#endif
    return found.sgemm(params, m, n, k, A, lda, B, ldb, C, ldc, a_type, b_type, c_type);
}
}
