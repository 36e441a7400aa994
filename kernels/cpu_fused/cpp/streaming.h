// Stores past the caches. To write a line of memory a processor reads it first, and keeps it in the caches in place of
// another. Where the tensors of a pass don't fit into the last-level cache, both are in vain: what is written first has
// left the caches before anyone reads it.

#pragma once

#include "conversion.h"
#include "layout.h"

#include <cstdint>

#ifdef __SSE2__
#include <immintrin.h>
#endif

namespace {

constexpr Index CACHE_LINE = 64;  // bytes

// What so many threads can cache; 0 where the compiler isn't told. So many processors share a last-level cache.
inline Index cached_bytes([[maybe_unused]] Index threads) {
#ifdef CACHE_BYTES
    return CACHE_BYTES * ((threads + CACHE_PROCESSORS - 1) / CACHE_PROCESSORS);
#else
    return 0;
#endif
}

inline Index bytes_of(const Plan& plan, Index tensors) {
    return tensors * plan.images * plan.channels * plan.height * plan.width * sizeof(Stored);
}

// Whether so many tensors of the input's size leave no room in the caches.
inline bool fill_caches(const Plan& plan, Index tensors) {
    const Index cached = cached_bytes(plan.threads);
    return cached && bytes_of(plan, tensors) >= cached;
}

// Whether a pass over so many tensors should write one of them past the caches, from `to` on: not where they just fit,
// which is faster with ordinary stores. There and after every `run` numbers a cache line has to begin, since stores
// past the caches take only whole aligned vectors.
inline bool exceeds_caches(const Plan& plan, Index tensors, Index run, const Stored* to) {
    const Index cached = cached_bytes(plan.threads);
    return cached && bytes_of(plan, tensors) > cached && run * sizeof(Stored) % CACHE_LINE == 0 &&
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
