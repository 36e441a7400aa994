// What a residual changes in the backward. It was added before the activation, so x alone doesn't give z any more; but
// the output y gives the slope, and nobody has to keep the residual:
//
//     relu       slope = y > 0
//     sigmoid    slope = y (1 - y)
//
// dz, the gradient before the activation, is the residual's gradient, too. The first step writes it, the second reads
// it as if it were the gradient of a block without activation.

#pragma once

#include "activation.h"
#include "layout.h"

namespace {

struct WithResidual {
    const Stored* y;  // null in a block without residual, or without activation: there dz is dy
    Stored* dz;

    // Writes dz from `at` on, and returns it unrounded.
    const Real* before_activation(const Real* dy, Index at, Index count, Activation activation,
                                  Scratch& scratch) const {
        const Real* output = widened(y + at, count, scratch.at(OUTPUT));
        Real* result = target(dz + at, scratch.at(WITHIN));
        const auto with = [&](auto times_slope) {
            for_numbers(count, [&](auto kind, Index i) {
                using Number = decltype(kind);
                put(times_slope(get<Number>(dy + i), get<Number>(output + i)), result + i);
            });
        };
        if (activation == SIGMOID) with([](auto dy, auto y) { return dy * (y * (1 - y)); });
        if (activation == RELU)
            with([](auto dy, auto y) { return y <= decltype(y){} ? decltype(y){} : dy; });  // NaN lets pass
        narrow(result, count, dz + at);
        return result;
    }
};

}  // namespace
