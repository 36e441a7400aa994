// SIMD: one instruction for several numbers. A *vector* is a register with LANES numbers, a *lane* is the place of one
// of them. An operation on vectors does the same in every lane:
//
//     Vector a        a0 | a1 | a2 | a3 | a4 | a5 | a6 | a7      with AVX a vector has 32 bytes: 8 floats or 4 doubles,
//     Vector b        b0 | b1 | b2 | b3 | b4 | b5 | b6 | b7      else 16
//     a * b           a0 b0 | a1 b1 | ...        | a7 b7
//
// An *accumulator* is a vector that sums in each lane: `a += load(x, i)` adds x[i] to lane 0, x[i + 1] to lane 1, and
// so on. `total(a)` adds up the lanes at the end. Loops that sum have several accumulators: an addition has to wait for
// the one before it in the same accumulator, but not for those in others.
//
// The vectors are GCC's and Clang's vector extensions: only conversion.h names instructions. Most functions are
// templates over `Number`, which is Vector, HalfVector or, for the last few numbers, Real itself. With AVX-512 it is
// WideVector, too, where an exponential is calculated: for less, and where vectors change places, it gains nothing.

#pragma once

#include "numbers.h"

#include <utility>

namespace {

#ifdef __AVX__
constexpr int VECTOR_BYTES = 32;
#else
constexpr int VECTOR_BYTES = 16;
#endif
typedef Real Vector __attribute__((vector_size(VECTOR_BYTES)));
typedef Real HalfVector __attribute__((vector_size(VECTOR_BYTES / 2)));
constexpr Index LANES = VECTOR_BYTES / sizeof(Real);

#ifdef __AVX512F__
constexpr Index WIDE_LANES = 2 * LANES;
typedef Real WideVector __attribute__((vector_size(2 * VECTOR_BYTES)));
#endif

template <class Number>  // Real, or one of the vectors
struct Words;
template <>
struct Words<Real> {
    typedef Word type;
};
template <>
struct Words<Vector> {
    typedef Word type __attribute__((vector_size(VECTOR_BYTES)));
};
template <>
struct Words<HalfVector> {
    typedef Word type __attribute__((vector_size(VECTOR_BYTES / 2)));
};
#ifdef __AVX512F__
template <>
struct Words<WideVector> {
    typedef Word type __attribute__((vector_size(2 * VECTOR_BYTES)));
};
#endif

// `get` loads a Number of consecutive numbers, `put` stores one. In memory they may be of 16 bits.
template <class Number>
inline Number get(const Real* from) {
    Number number;
    std::memcpy(&number, from, sizeof number);
    return number;
}

template <class Number>
inline void put(Number number, Real* to) {
    std::memcpy(to, &number, sizeof number);
}

// Calls body(Number{}, i) for `count` consecutive numbers. Number says how many of them the call is for, from i on:
//
//     i     0               8               16      20  21  22
//           |    Vector     |    Vector     | Half  | R | R |      count = 22, LANES = 8
//
// The tail, what is left when no vector fits any more, is one half vector if that fits, then single numbers.
template <class Body>
inline void for_numbers(Index count, Body body) {
    Index i = 0;
    for (; i + LANES <= count; i += LANES) body(Vector{}, i);
    if (i + LANES / 2 <= count) body(HalfVector{}, i), i += LANES / 2;
#pragma GCC unroll 4
    for (Index left = 1; left < LANES / 2 && i < count; left++)
        body(Real{}, i++);  // compilers make no vectors of so few
}

// Whether so much is calculated for each number that wider vectors pay.
using Slow = std::true_type;
using Quick = std::false_type;

// The same for either.
template <class Body>
inline void for_numbers(Quick, Index count, Body body) {
    for_numbers(count, body);
}

template <class Body>
inline void for_numbers(Slow, Index count, Body body) {
#ifdef __AVX512F__
    Index i = 0;
    for (; i + WIDE_LANES <= count; i += WIDE_LANES) body(WideVector{}, i);
    for (; i + LANES <= count; i += LANES) body(Vector{}, i);
    if (i + LANES / 2 <= count) body(HalfVector{}, i), i += LANES / 2;
    for (; i < count; i++) body(Real{}, i);
#else
    for_numbers(count, body);
#endif
}

inline Vector load(const Real* from, Index at) { return get<Vector>(from + at); }

inline void store(Vector v, Real* to, Index at) { put(v, to + at); }

// Where the two halves of a vector are in memory: two short rows of pixels fill one vector.
struct Halves {
    Index one, two;
};

#if defined(__clang__) || __GNUC__ >= 12
template <Index... LOWER>
inline Vector joined(HalfVector one, HalfVector two, std::integer_sequence<Index, LOWER...>) {
    return __builtin_shufflevector(one, two, LOWER..., (LOWER + LANES / 2)...);
}

template <Index... LOWER>
inline void store(Vector v, Real* to, Halves at, std::integer_sequence<Index, LOWER...>) {
    const HalfVector one = __builtin_shufflevector(v, v, LOWER...);
    const HalfVector two = __builtin_shufflevector(v, v, (LOWER + LANES / 2)...);
    std::memcpy(to + at.one, &one, sizeof one);
    std::memcpy(to + at.two, &two, sizeof two);
}

inline Vector load(const Real* from, Halves at) {
    HalfVector one, two;
    std::memcpy(&one, from + at.one, sizeof one);
    std::memcpy(&two, from + at.two, sizeof two);
    return joined(one, two, std::make_integer_sequence<Index, LANES / 2>());
}

inline void store(Vector v, Real* to, Halves at) { store(v, to, at, std::make_integer_sequence<Index, LANES / 2>()); }
#else
inline Vector load(const Real* from, Halves at) {
    Vector v;
    std::memcpy(&v, from + at.one, sizeof v / 2);
    std::memcpy(reinterpret_cast<char*>(&v) + sizeof v / 2, from + at.two, sizeof v / 2);
    return v;
}

inline void store(Vector v, Real* to, Halves at) {
    std::memcpy(to + at.one, &v, sizeof v / 2);
    std::memcpy(to + at.two, reinterpret_cast<char*>(&v) + sizeof v / 2, sizeof v / 2);
}
#endif

inline double total(Vector v) {
    double sum = 0;
    for (Index i = 0; i < LANES; i++) sum += v[i];
    return sum;
}

// The last `count` lanes; the others are 0.
inline Vector last_lanes(Vector v, Index count) {
    typedef std::make_signed_t<Word> Places __attribute__((vector_size(VECTOR_BYTES)));
    Places place{};
    for (Index i = 0; i < LANES; i++) place[i] = i;
    return place >= std::make_signed_t<Word>(LANES - count) ? v : Vector{};
}

// Chosen lanes of two vectors, whose lanes are numbered from 0 to 2 * LANES - 1.
template <Index... LANE>
inline Vector picked(Vector a, Vector b) {
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(a, b, LANE...);
#else
    typedef std::make_signed_t<Word> Places __attribute__((vector_size(VECTOR_BYTES)));
    return __builtin_shuffle(a, b, Places{LANE...});
#endif
}

template <class Lanes>
struct Pairs;

// Vectors of pixels of one row, taken as pairs: lanes 0 and 1, lanes 2 and 3, and so on. Pixels a to p in two vectors:
//
//     a b c d e f g h | i j k l m n o p    left    a c e g i k m o    the left pixel of each pair
//                                          right   b d f h j l n p    the right one
//     a b c d e f g h                      swapped b a d c f e h g    each pixel's neighbor
//     a b c d . . . .                      doubled a a b b c c d d    a window's number for both of its pixels
template <Index... I>
struct Pairs<std::integer_sequence<Index, I...>> {
    static constexpr Vector NUMBER{(I % 2)...};  // 0 1 0 1 ...: of the pixels in the upper row of their windows

    static Vector left(Vector a, Vector b) { return picked<(2 * I)...>(a, b); }
    static Vector right(Vector a, Vector b) { return picked<(2 * I + 1)...>(a, b); }
    static Vector doubled(Vector v) { return picked<(I / 2)...>(v, v); }

    static Vector swapped(Vector v) { return picked<(I ^ 1)...>(v, v); }
};

using Pair = Pairs<std::make_integer_sequence<Index, LANES>>;

}  // namespace
