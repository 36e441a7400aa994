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
};

// Calls body with the function that makes dz of dy and y.
template <class Body>
inline void with_slope_from_output(Activation activation, Body body) {
    if (activation == SIGMOID) body([](auto dy, auto y) { return dy * (y * (1 - y)); });
    if (activation == RELU)
        body([](auto dy, auto y) { return y <= decltype(y){} ? decltype(y){} : dy; });  // NaN lets pass
}

}  // namespace
