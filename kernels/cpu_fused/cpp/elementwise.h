// Loops over the first `count` numbers of lines, each of which is worked on alone. `Channels` is OneChannel or
// ManyChannels.

#pragma once

#include "activation.h"
#include "channels.h"

namespace {

// y = activation(z + residual), z the normalized x; y = activation(z) where the residual is null.
template <int N, class Channels>
inline void activate(const Real* x, const Real* residual, Lines<N> lines, Index count, Channels channels,
                     Activation activation, Real* y) {
    const auto with = [&](auto activated) {
        const auto to_each = [&](auto added) {
            for_numbers(count, [&](auto kind, Index i) {
                using Number = decltype(kind);
                const Channel<Number> channel = channels.template at<Number>(i);
#pragma GCC unroll 4
                for (int k = 0; k < N; k++) {
                    const Index at = k * lines.apart + i;
                    put(activated(added(channel.normalized(get<Number>(x + at)), at)), y + at);
                }
            });
        };
        if (residual)
            to_each([&](auto z, Index i) { return z + get<decltype(z)>(residual + i); });
        else
            to_each([](auto z, Index) { return z; });
    };
    if (activation == NONE) with([](auto z) { return z; });
    if (activation == SIGMOID) with([](auto z) { return sigmoid(z); });
    if (activation == RELU) with([](auto z) { return z < decltype(z){} ? decltype(z){} : z; });  // NaN stays
}

// Calls body with the function that makes dz of dy and z, where there is an activation.
template <class Body>
inline void with_slope(Activation activation, Body body) {
    if (activation == SIGMOID) body([](auto dy, auto z) { return dy * sigmoid_slope(z); });
    if (activation == RELU)
        body([](auto dy, auto z) { return z <= decltype(z){} ? decltype(z){} : dy; });  // NaN lets pass
}

// dz, the gradient before the activation: written to `scratch`, or dy itself where there is no activation.
template <class Channels>
inline const Real* before_activation(const Real* x, const Real* dy, Index count, Channels channels,
                                     Activation activation, Real* scratch) {
    if (activation == NONE) return dy;
    with_slope(activation, [&](auto times_slope) {
        for_numbers(count, [&](auto kind, Index i) {
            using Number = decltype(kind);
            const Number z = channels.template at<Number>(i).normalized(get<Number>(x + i));
            put(times_slope(get<Number>(dy + i), z), scratch + i);
        });
    });
    return scratch;
}

// dx from dz, whose lines are `dz_apart` apart.
template <int N, class Channels>
inline void input_gradient(const Real* x, Lines<N> lines, const Real* dz, Index dz_apart, Index count,
                           Channels channels, Real* dx) {
    for_numbers(count, [&](auto kind, Index i) {
        using Number = decltype(kind);
        const Channel<Number> channel = channels.template at<Number>(i);
#pragma GCC unroll 4
        for (int k = 0; k < N; k++) {
            const Number through = channel.through_statistics(get<Number>(x + k * lines.apart + i));
            put(through + channel.scale * get<Number>(dz + k * dz_apart + i), dx + k * lines.apart + i);
        }
    });
}

}  // namespace
