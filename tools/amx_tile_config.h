// Included before llama.cpp's AMX code (llama.cmake).
//
// GCC's _tile_loadconfig, up to 15 at least, tells the compiler that it reads 8 bytes. It reads 64: the number of rows
// and the row length of each tile among them. The stores of those are then removed as dead, and the first instruction
// on a tile is an illegal one (llama.cpp pull request 26954).

#pragma once

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__)
#include <immintrin.h>
#undef _tile_loadconfig
#define _tile_loadconfig(config) rustygpt_tile_loadconfig(config)

static inline __attribute__((always_inline, unused)) void rustygpt_tile_loadconfig(const void *config) {
    __asm__ volatile("ldtilecfg\t%0" ::"m"(*(const char(*)[64])config));
}
#endif
