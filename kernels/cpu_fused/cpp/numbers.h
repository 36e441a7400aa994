// The types of numbers. A tensor holds `Stored`; all arithmetic is in `Real`: float, or double where tensors hold
// double. 16-bit numbers are widened to float when they are loaded, and rounded when they are stored.

#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

// Before a loop: no iteration needs the result of another, so the compiler may do several in one vector.
#ifdef __clang__
#define INDEPENDENT_ITERATIONS _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT_ITERATIONS _Pragma("GCC ivdep")
#endif

// Before a function: all that it calls becomes part of it. Compilers stop at a size, and then the loop over the
// channels of a pixel looks up its pointers for every vector: half as fast.
#define WITH_ALL_IT_CALLS __attribute__((flatten))

namespace {

using Index = std::int64_t;

template <class To, class From>
inline To bits_of(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

struct BFloat16 {  // the upper half of a float
    std::uint16_t bits;

    BFloat16() = default;

    explicit BFloat16(float value) {  // to the nearest, ties to even
        const auto wide = bits_of<std::uint32_t>(value);
        const std::uint32_t rounded = wide + 0x7fff + ((wide >> 16) & 1);
        bits = std::uint16_t((value != value ? 0x7fc00000 : rounded) >> 16);
    }

    operator float() const { return bits_of<float>(std::uint32_t(bits) << 16); }
};

#ifdef __FLT16_MANT_DIG__
using Half = _Float16;
#endif

#ifndef STORED
#define STORED float
#endif
using Stored = STORED;
using Real = std::conditional_t<std::is_same_v<Stored, double>, double, float>;
constexpr bool WIDE = std::is_same_v<Real, double>;
using Word = std::conditional_t<WIDE, std::uint64_t, std::uint32_t>;  // an integer of Real's size

// The loops take at most this many numbers at a time: these stay in the first-level cache from one loop to the next,
// and a sum of so many is added to a double before rounding in Real costs digits.
constexpr Index TILE = 2048;

// N lines of numbers in memory, each starting `apart` numbers after the one before, with the same channels in each:
// what is needed of a channel is loaded once for all of them.
template <int N>
struct Lines {
    static constexpr int COUNT = N;
    Index apart;
};
constexpr Lines<1> ONE_LINE{0};

// `runs` runs of `length` consecutive numbers, each starting `stride` numbers after the one before.
struct Runs {
    const Stored* x;
    Index runs, length, stride;
};

}  // namespace
