// Stores past the caches. To write a line of memory a processor reads it first, and keeps it in the caches in place of
// another. Where the tensors of a pass don't fit into the last-level cache, both are in vain: what is written first has
// left the caches before anyone reads it.

#pragma once

#include "conversion.h"
#include "layout.h"

#include <algorithm>
#include <cctype>
#include <cstdio>

#ifdef __SSE2__
#include <immintrin.h>
#endif

namespace {

constexpr Index CACHE_LINE = 64;  // bytes

// Linux says how large the last-level cache of a processor is, and which processors share it.
struct LastLevel {
    Index bytes = 0, processors = 1;

    LastLevel() {
        const auto read = [](int level, const char* what, auto use) {
            char path[96];
            std::snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/%s", level, what);
            std::FILE* const file = std::fopen(path, "r");
            if (!file) return false;
            use(file);
            std::fclose(file);
            return true;
        };
        int level = 0;
        while (read(level, "size", [&](std::FILE* file) {
            long long size = 0;
            char unit = 0;
            if (std::fscanf(file, "%lld%c", &size, &unit) == 2) bytes = size << (unit == 'M' ? 20 : 10);
        }))
            level++;
        read(level - 1, "shared_cpu_map", [&](std::FILE* file) {
            processors = 0;
            for (int digit; (digit = std::fgetc(file)) != EOF;)
                if (std::isxdigit(digit))
                    processors += __builtin_popcount(unsigned(digit <= '9' ? digit : digit % 32 + 9) & 15);
        });
    }
};

// What so many threads can cache; 0 where the system doesn't say.
inline Index cached_bytes(Index threads) {
#ifdef CACHED_BYTES
    return CACHED_BYTES;
#else
    static const LastLevel last;
    return last.bytes * std::max<Index>(1, (threads + last.processors - 1) / std::max<Index>(1, last.processors));
#endif
}

// Whether a pass over so many tensors of the input's size should write one of them past the caches, from `to` on. There
// and after every `run` numbers a cache line has to begin, since these stores take only whole aligned vectors.
inline bool exceeds_caches(const Plan& plan, Index tensors, Index run, const Stored* to) {
    const Index bytes = plan.images * plan.channels * plan.height * plan.width * sizeof(Stored);
    const Index cached = cached_bytes(plan.threads);
    return cached && tensors * bytes > cached && run * sizeof(Stored) % CACHE_LINE == 0 &&
           reinterpret_cast<std::uintptr_t>(to) % CACHE_LINE == 0;
}

struct Kept {
    template <class Number>
    static void put(Number number, Stored* to) {
        ::put(number, to);
    }
};

struct Past {
    template <class Number>
    static void put(Number number, Stored* to) {
#ifdef __SSE2__
        constexpr Index bytes = sizeof(Number) / sizeof(Real) * sizeof(Stored);
        alignas(CACHE_LINE) Stored piece[sizeof(Number) / sizeof(Real)];
        ::put(number, piece);
        if constexpr (bytes == 16)
            return _mm_stream_si128(reinterpret_cast<__m128i*>(to), *reinterpret_cast<const __m128i*>(piece));
#ifdef __AVX__
        else if constexpr (bytes == 32)
            return _mm256_stream_si256(reinterpret_cast<__m256i*>(to), *reinterpret_cast<const __m256i*>(piece));
#endif
#ifdef __AVX512F__
        else if constexpr (bytes == 64)
            return _mm512_stream_si512(reinterpret_cast<__m512i*>(to), *reinterpret_cast<const __m512i*>(piece));
#endif
#endif
        ::put(number, to);
    }
};

// Calls body with how to store; other threads see all of it afterward.
template <class Body>
inline void with_stores(bool past, Body body) {
    if (!past) return body(Kept());
    body(Past());
#ifdef __SSE2__
    _mm_sfence();
#endif
}

}  // namespace
