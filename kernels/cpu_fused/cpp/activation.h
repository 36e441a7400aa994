// The activations and their slopes, for a vector or a single number.

#pragma once

#include "vectors.h"

namespace {

enum Activation : std::int64_t { NONE, SIGMOID, RELU };

// The largest z for which neither exp(z) nor 1 / exp(z) leaves the range of Real.
constexpr Real LARGEST_POWER = WIDE ? 708 : 87;

// exp(v) for v up to LARGEST_POWER, NaN for NaN: 2^n exp(r), |r| <= log(2) / 2, exp(r) by its Taylor series.
template <class Number>
inline Number exponential(Number v) {
    using Bits = typename Words<Number>::type;
    constexpr int DIGITS = WIDE ? 52 : 23;
    // 1.5 * 2^DIGITS: numbers of this size are whole, so adding it rounds. The exponent's bias more leaves the bits of
    // 2^n in the lowest bits.
    constexpr Real ROUNDER = WIDE ? 6755399441055744.0 + 1023 : 12582912.0 + 127;
    constexpr Real LOG2_E = Real(1.44269504088896340736);
    // log(2) in two parts, the first with so few digits that its product with n is exact.
    constexpr Real LOG_2_HIGH = Real(WIDE ? 0x1.62e42feep-1 : 0x1.63p-1);
    constexpr Real LOG_2_LOW = Real(WIDE ? 0x1.a39ef35793c76p-33 : -0x1.bd0105c610ca8p-13);
    constexpr int TERMS = WIDE ? 13 : 7;
    constexpr double OVER_FACTORIAL[] = {
        1.0,        1.0,         1.0 / 2,      1.0 / 6,       1.0 / 24,       1.0 / 120,       1.0 / 720,
        1.0 / 5040, 1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800};

    const Number shifted = v * LOG2_E + ROUNDER;
    const Number n = shifted - ROUNDER;
    const Number r = (v - n * LOG_2_HIGH) - n * LOG_2_LOW;
    Number series = Number{} + Real(OVER_FACTORIAL[TERMS]);
#pragma GCC unroll 13
    for (int k = TERMS - 1; k >= 0; k--) series = series * r + Real(OVER_FACTORIAL[k]);
    return series * bits_of<Number>(bits_of<Bits>(shifted) << DIGITS);
}

template <class Number>
inline Number sigmoid(Number z) {
    const Number most = Number{} + LARGEST_POWER;
    z = z > most ? most : z;
    z = z < -most ? -most : z;
    return 1 / (1 + exponential(-z));
}

template <class Number>
inline Number sigmoid_slope(Number z) {  // by exp(-|z|), which keeps its digits where 1 - sigmoid(z) has none
    const Number most = Number{} + LARGEST_POWER, size = z > -z ? z : -z;
    const Number e = exponential(-(size > most ? most : size));
    return e / ((1 + e) * (1 + e));
}

}  // namespace
