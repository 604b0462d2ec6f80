// Weights in blocks of few bits, made BF16 a few rows at a time, for all columns at once. llama.cpp unpacks them again
// for each column, or a few, and rounds the values to 8 bits, where here they have BF16's.

#pragma once

#include <cstdlib>
#include <cstring>

#include "tiles.h"

// Memory of one thread, which grows with what is asked of it.
struct scratch {
    void *memory = nullptr;
    size_t bytes = 0;

    bf16 *of(int64_t numbers) {
        if (const size_t wanted = numbers * sizeof(bf16); wanted > bytes) {
            free(memory);
            bytes = (wanted + LINE - 1) / LINE * LINE;
            if (!(memory = aligned_alloc(LINE, bytes))) abort();
        }
        return (bf16 *)memory;
    }

    ~scratch() { free(memory); }
};

// A block of 32 weights in 4 bits each, times a scale, above a least value.
struct q4_1_block {
    static constexpr int BLOCKS_OF_A_LINE = 3;
    uint16_t scale, least;  // half floats
    uint8_t numbers[16];    // the first 16 in the low bits, the others in the high

    __m512i unpacked() const {
        int halves;
        memcpy(&halves, this, sizeof(halves));
        const __m128 both = _mm_cvtph_ps(_mm_cvtsi32_si128(halves));
        const __m512 scales = _mm512_broadcastss_ps(both), leasts = _mm512_broadcastss_ps(_mm_movehdup_ps(both));
        // The 16 numbers that there are, of which those of the block are chosen.
        const __m512 steps = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        const __m256i all = (__m256i)_mm512_cvtneps_pbh(_mm512_fmadd_ps(steps, scales, leasts));
        const __m256i low = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)numbers));
        const __m512i index = _mm512_inserti64x4(_mm512_castsi256_si512(low), _mm256_srli_epi16(low, 4), 1);
        return _mm512_permutexvar_epi16(_mm512_and_si512(index, _mm512_set1_epi16(15)), _mm512_castsi256_si512(all));
    }
};

// A block of 32 weights in 8 bits each, times a scale.
struct q8_0_block {
    static constexpr int BLOCKS_OF_A_LINE = 1;
    uint16_t scale;  // half float
    int8_t numbers[LANES];

    __m512i unpacked() const {
        const __m512 scales = _mm512_set1_ps(_cvtsh_ss(scale));
        const auto half = [&](int i) {
            const __m512i whole = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(numbers + i)));
            return _mm512_mul_ps(_mm512_cvtepi32_ps(whole), scales);
        };
        return (__m512i)_mm512_cvtne2ps_pbh(half(16), half(0));
    }
};

template <class Block>
struct quantised_weights {
    static constexpr bool ARE_ASKED_FOR = false;
    const Block *A;
    int64_t lda;

    const char *address(int64_t row) const { return (const char *)(A + row * lda); }

    // Valid until the thread's next call. Asks for as much from `next` on, unless it is null.
    rows_of_bf16 rows(int64_t row, int count, int64_t k, const char *next) const {
        static thread_local scratch memory;
        bf16 *to = memory.of(count * k);
        for (int r = 0; r < count; r++) {
            const Block *from = A + (row + r) * lda;
            for (int64_t i = 0; i < k / LANES; i++, from++, to += LANES) {
                if (next && i % Block::BLOCKS_OF_A_LINE == 0)
                    _mm_prefetch(next + ((const char *)from - address(row)), _MM_HINT_T1);
                _mm512_storeu_si512(to, from->unpacked());
            }
        }
        return {to - count * k, k};
    }
};

// Values as llama.cpp has them, made BF16: each thread does it for itself, since it is little beside the rest.
struct f32_values {
    const float *B;
    int64_t ldb;
    int64_t begin = -1;
    rows_of_bf16 made = {};

    // Valid until the thread's next product.
    rows_of_bf16 rows(int64_t row, int64_t end, int64_t k) {
        static thread_local scratch memory;
        if (row == begin) return made;
        bf16 *to = memory.of((end - row) * k);
        begin = row;
        made = {to, k};
        for (; row < end; row++)
            for (int64_t i = 0; i < k; i += LANES, to += LANES) {
                const float *from = B + row * ldb + i;
                const __m512bh both = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + 16), _mm512_loadu_ps(from));
                _mm512_storeu_si512(to, (__m512i)both);
            }
        return made;
    }
};
