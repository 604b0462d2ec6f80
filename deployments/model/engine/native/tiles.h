// How a product is divided among threads and into tiles, and what all kernels have in common.

#pragma once

#include <algorithm>
#include <type_traits>

#include <immintrin.h>

#include "llama.h"

#if defined(__clang__)
#define UNROLLED _Pragma("clang loop unroll(full)")
#else
#define UNROLLED _Pragma("GCC unroll 16")  // otherwise GCC keeps arrays of registers in memory
#endif

using bf16 = uint16_t;

// Rows of numbers, one `stride` of them after another.
struct rows_of_bf16 {
    const bf16 *first;
    int64_t stride;
};

constexpr int LANES = 32;         // BF16 numbers of a register: rows are of whole ones
constexpr int64_t LINE = 64;      // bytes of the cache
constexpr int64_t AHEAD = 16384;  // bytes between a line that is needed and the one that is asked for
// A tile's sums are 16 registers of 32.
constexpr int ROWS = 4, COLUMNS = 4;
// Small matrices are divided evenly, each thread reading one piece. The threads share a larger one, or many columns,
// in parts: one that is held up leaves the rest to the others. The columns of a part fit into the second cache.
constexpr int64_t EVEN_BYTES = 8 << 20;
constexpr int64_t PART_ROWS = 256, PART_ROWS_OF_MANY_COLUMNS = 64, PARTS_OF_A_THREAD = 4;
constexpr int64_t PART_NUMBERS = 1 << 18, LEAST_COLUMNS = 32, MOST_COLUMNS = 128;

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

// C[column][row] for R rows of A and N of B, each of k BF16 numbers. `Lines` lines are asked for at each step.
template <int R, int N, int Lines>
void tile(int64_t k, const bf16 *A, int64_t lda, const bf16 *B, int64_t ldb, float *C, int64_t ldc, const char *next) {
    __m512 sum[16];
    UNROLLED
    for (int i = 0; i < 16; i++) sum[i] = _mm512_setzero_ps();
    for (int64_t i = 0; i < k; i += LANES) {
        UNROLLED
        for (int line = 0; line < Lines; line++, next += LINE) _mm_prefetch(next, _MM_HINT_T1);
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

// `tile` with numbers that are known only now.
template <int R, class... Arguments>
void tile(int columns, int lines, Arguments... arguments) {
    const auto with = [&](auto N) {
        switch (lines) {
            case 4: return tile<R, N, 4>(arguments...);
            case 2: return tile<R, N, 2>(arguments...);
            case 1: return tile<R, N, 1>(arguments...);
            default: return tile<R, N, 0>(arguments...);
        }
    };
    switch (columns) {
        case 1: return with(std::integral_constant<int, 1>());
        case 2: return with(std::integral_constant<int, 2>());
        case 3: return with(std::integral_constant<int, 3>());
        default: return with(std::integral_constant<int, COLUMNS>());
    }
}

// A product of weights and values, each row of k numbers. `Weights` and `Values` give rows as BF16: see bf16.h.
template <class Weights, class Values>
struct product {
    int64_t k;
    Weights weights;
    Values values;
    float *C;
    int64_t ldc;

    void part(int64_t row, int64_t row_end, int64_t column, int64_t column_end) {
        const rows_of_bf16 b = values.rows(column, column_end, k);
        const char *last = weights.address(row_end);
        while (row + ROWS <= row_end) row += rows<ROWS>(row, column, column_end, b, last);
        while (row < row_end) row += rows<1>(row, column, column_end, b, last);
    }

    // R rows with all columns. The first tiles ask for rows that come later, as far as they are this thread's: for R
    // lines at each of their steps, each tile for a share.
    template <int R>
    int rows(int64_t row, int64_t column, int64_t column_end, rows_of_bf16 b, const char *last) {
        // Not before the last of these rows: their lines are read side by side, those ahead one row after another.
        const char *next = weights.address(row) + std::max(AHEAD, weights.address(R) - weights.address(0));
        const rows_of_bf16 a = weights.rows(row, R, k, next < last ? next : nullptr);
        const int64_t tiles = (column_end - column + COLUMNS - 1) / COLUMNS;
        const int each = tiles == 1 ? R : tiles < R ? R / 2 : 1;
        for (int left = Weights::ARE_ASKED_FOR && next < last ? R : 0; column < column_end; column += COLUMNS) {
            const int lines = left > 0 ? each : 0;
            const int64_t columns = std::min<int64_t>(column_end - column, COLUMNS);
            tile<R>(int(columns), lines, k, a.first, a.stride, b.first, b.stride, C + column * ldc + row, ldc, next);
            b.first += COLUMNS * b.stride;
            left -= lines;
            next += lines * k * int64_t(sizeof(bf16));
        }
        return R;
    }
};

// One thread's share of a product of m rows of weights with n columns.
template <class Product>
void multiply(const llama_functions &llama, const compute_params &params, int64_t m, int64_t n, Product work) {
    const int64_t columns = std::clamp(PART_NUMBERS / work.k / COLUMNS * COLUMNS, LEAST_COLUMNS, MOST_COLUMNS);
    const bool is_shared = n > columns || work.weights.address(m) - work.weights.address(0) > EVEN_BYTES;
    const auto divided = [m](int64_t parts) { return ((m + parts - 1) / parts + ROWS - 1) / ROWS * ROWS; };
    const int64_t rows = is_shared ? std::min(n > columns ? PART_ROWS_OF_MANY_COLUMNS : PART_ROWS,
                                              divided(PARTS_OF_A_THREAD * params.threads))
                                   : divided(params.threads);
    const int64_t down = (m + rows - 1) / rows, across = (n + columns - 1) / columns;
    if (is_shared) {
        if (params.thread == 0) llama.chunk_set(params.pool, params.threads);
        llama.barrier(params.pool);
    }
    for (int64_t job = params.thread; job < down * across;) {
        const int64_t row = job % down * rows, column = job / down * columns;
        work.part(row, std::min(m, row + rows), column, std::min(n, column + columns));
        job = is_shared ? llama.chunk_add(params.pool, 1) : job + params.threads;
    }
    if (is_shared) llama.barrier(params.pool);
}
