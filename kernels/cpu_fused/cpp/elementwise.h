// Loops over `count` consecutive numbers, each of which is worked on alone. `Channels` is OneChannel or ManyChannels.

#pragma once

#include "activation.h"
#include "channels.h"

namespace {

// y = activation(z + residual), z the normalized x; y = activation(z) where the residual is null.
template <class Channels>
inline void activate(const Real* x, const Real* residual, Index count, Channels channels, Activation activation,
                     Real* y) {
    const auto with = [&](auto activated) {
        const auto to_each = [&](auto added) {
            for_numbers(count, [&](auto kind, Index i) {
                using Number = decltype(kind);
                put(activated(added(channels.template at<Number>(i).normalized(get<Number>(x + i)), i)), y + i);
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

// dz, the gradient before the activation: written to `scratch`, or dy itself where there is no activation.
template <class Channels>
inline const Real* before_activation(const Real* x, const Real* dy, Index count, Channels channels,
                                     Activation activation, Real* scratch) {
    const auto with = [&](auto times_slope) {
        for_numbers(count, [&](auto kind, Index i) {
            using Number = decltype(kind);
            const Number z = channels.template at<Number>(i).normalized(get<Number>(x + i));
            put(times_slope(get<Number>(dy + i), z), scratch + i);
        });
    };
    if (activation == NONE) return dy;
    if (activation == SIGMOID) with([](auto dy, auto z) { return dy * sigmoid_slope(z); });
    if (activation == RELU)
        with([](auto dy, auto z) { return z <= decltype(z){} ? decltype(z){} : dy; });  // NaN lets pass
    return scratch;
}

// dx from dz.
template <class Channels>
inline void input_gradient(const Real* x, const Real* dz, Index count, Channels channels, Real* dx) {
    for_numbers(count, [&](auto kind, Index i) {
        using Number = decltype(kind);
        const Channel<Number> channel = channels.template at<Number>(i);
        put(channel.through_statistics(get<Number>(x + i)) + channel.scale * get<Number>(dz + i), dx + i);
    });
}

}  // namespace
