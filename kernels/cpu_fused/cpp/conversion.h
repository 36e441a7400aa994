// Numbers of 16 bits in memory, and as float: `get` and `put` of vectors.h for them, and whole tiles. Rounding is to
// the nearest, ties to even.

#pragma once

#include "vectors.h"

#if defined(__F16C__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

// As many numbers of 16 bits as a Number has lanes.
template <class Number>
struct Shorts;
template <>
struct Shorts<Vector> {
    typedef std::uint16_t type __attribute__((vector_size(VECTOR_BYTES / 2)));
};
template <>
struct Shorts<HalfVector> {
    typedef std::uint16_t type __attribute__((vector_size(VECTOR_BYTES / 4)));
};

#ifdef __AVX512F__
template <>
struct Shorts<WideVector> {
    typedef std::uint16_t type __attribute__((vector_size(VECTOR_BYTES)));
};
#endif

// Words of 32 bits from numbers of 16, and back. Compilers don't find the short way for a vector of AVX2.
template <class Number>
inline auto words_of(typename Shorts<Number>::type bits) {
    using Bits = typename Words<Number>::type;
#ifdef __AVX2__
    if constexpr (std::is_same_v<Number, Vector>)
        return bits_of<Bits>(_mm256_cvtepu16_epi32(bits_of<__m128i>(bits)));
    else
#endif
        return __builtin_convertvector(bits, Bits);
}

template <class Number>
inline auto shorts_of(typename Words<Number>::type words) {
    using Bits = typename Shorts<Number>::type;
#ifdef __AVX2__
    if constexpr (std::is_same_v<Number, Vector>) {
        const auto all = bits_of<__m256i>(words);
        return bits_of<Bits>(_mm_packus_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1)));
    } else
#endif
        return __builtin_convertvector(words, Bits);
}

template <class Number>
inline Number get(const BFloat16* from) {
    if constexpr (std::is_same_v<Number, Real>) {
        return *from;
    } else {
        typename Shorts<Number>::type bits;
        std::memcpy(&bits, from, sizeof bits);
        return bits_of<Number>(words_of<Number>(bits) << 16);
    }
}

template <class Number>
inline void put(Number number, BFloat16* to) {
    if constexpr (std::is_same_v<Number, Real>) {
        *to = BFloat16(number);
    } else {
        using Bits = typename Words<Number>::type;
        const auto wide = bits_of<Bits>(number);
        const Bits nan = bits_of<Bits>(number != number);  // all bits, which is a NaN, too
        const auto bits = shorts_of<Number>(((wide + 0x7fff + ((wide >> 16) & 1)) | nan) >> 16);
        std::memcpy(to, &bits, sizeof bits);
    }
}

// Without instructions for it compilers convert one number at a time.
#ifdef __FLT16_MANT_DIG__
template <class Number>
inline Number get(const Half* from) {
#ifdef __F16C__
    if constexpr (std::is_same_v<Number, Real>) return _cvtsh_ss(bits_of<std::uint16_t>(*from));
#ifdef __AVX512F__
    else if constexpr (std::is_same_v<Number, WideVector>)
        return bits_of<Number>(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
#endif
    else if constexpr (std::is_same_v<Number, Vector>)
        return bits_of<Number>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
    else
        return bits_of<Number>(_mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
#else
    if constexpr (std::is_same_v<Number, Real>) return Real(*from);
    Number number{};
    if constexpr (!std::is_same_v<Number, Real>)
        for (Index i = 0; i < Index(sizeof number / sizeof(Real)); i++) number[i] = Real(from[i]);
    return number;
#endif
}

template <class Number>
inline void put(Number number, Half* to) {
#ifdef __F16C__
    if constexpr (std::is_same_v<Number, Real>) *to = bits_of<Half>(_cvtss_sh(number, 0));
#ifdef __AVX512F__
    else if constexpr (std::is_same_v<Number, WideVector>)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtps_ph(bits_of<__m512>(number), 0));
#endif
    else if constexpr (std::is_same_v<Number, Vector>)
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(bits_of<__m256>(number), 0));
    else
        _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_cvtps_ph(bits_of<__m128>(number), 0));
#else
    if constexpr (std::is_same_v<Number, Real>)
        *to = Half(number);
    else
        for (Index i = 0; i < Index(sizeof number / sizeof(Real)); i++) to[i] = Half(number[i]);
#endif
}
#endif

// `count` numbers as Real: where they are if they are Real already, else converted into `scratch`.
inline const Real* widened(const Real* x, Index, Real*) { return x; }

template <class Other>
inline const Real* widened(const Other* x, Index count, Real* scratch) {
    for_numbers(count, [=](auto kind, Index i) { put(get<decltype(kind)>(x + i), scratch + i); });
    return scratch;
}

// Where to write Real numbers that belong in `y`: there, or in `scratch`, from where `narrow` rounds them into `y`.
inline Real* target(Real* y, Real*) { return y; }

template <class Other>
inline Real* target(Other*, Real* scratch) {
    return scratch;
}

inline void narrow(const Real*, Index, Real*) {}

template <class Other>
inline void narrow(const Real* from, Index count, Other* y) {
    for_numbers(count, [=](auto kind, Index i) { put(get<decltype(kind)>(from + i), y + i); });
}

}  // namespace
