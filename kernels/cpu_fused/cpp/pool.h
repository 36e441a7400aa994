// Which pixel of a 2 x 2 window counts.
//
//     0 | 1     a window's pixels are numbered so
//     --+--
//     2 | 3
//
// Activations never fall, so the largest output of a window comes from its largest x, or from its smallest where the
// weight is negative. Pooling x first leaves a quarter of the activations to calculate, and nothing to save for the
// backward, which chooses again. Where activations collapse to one number, the gradient goes to the true maximum.

#pragma once

#include "vectors.h"

namespace {

// The first where the weight is positive, the second where it is negative. (Where it is 0 or NaN, see Winner.)
enum Order { LARGEST, SMALLEST };

// Of two pixels the one that counts. In training one NaN has made the whole channel NaN, so it doesn't matter which.
template <Order ORDER, bool TRAINING, class Number>
inline Number that_counts(Number first, Number second) {
    if constexpr (ORDER == LARGEST) {
        if constexpr (TRAINING) return second > first ? second : first;
        return ((first >= second) | (first != first)) ? first : second;
    } else {
        if constexpr (TRAINING) return second < first ? second : first;
        return ((first <= second) | (first != first)) ? first : second;
    }
}

// The pixel that counts so far, and its number in the window. Of equal ones it is the first, of several NaN the last,
// as in ATen's max-pool; for any sign of the weight.
template <class Number>
struct Winner {
    Number x, number{};

    void challenge(Number other, Real its_number, Number sign) {
        const auto wins = (other * sign > x * sign) | (other != other);
        x = wins ? other : x;
        number = wins ? Number{} + its_number : number;
    }
};

}  // namespace
