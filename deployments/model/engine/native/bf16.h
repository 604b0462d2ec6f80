// Weights and values that are BF16 already.

#pragma once

#include "tiles.h"

struct bf16_weights {
    // The tiles ask for what comes later while they read.
    static constexpr bool ARE_ASKED_FOR = true;
    const bf16 *A;
    int64_t lda;

    const char *address(int64_t row) const { return (const char *)(A + row * lda); }
    rows_of_bf16 rows(int64_t row, int, int64_t, const char *) const { return {A + row * lda, lda}; }
};

struct bf16_values {
    const bf16 *B;
    int64_t ldb;

    rows_of_bf16 rows(int64_t row, int64_t, int64_t) const { return {B + row * ldb, ldb}; }
};
