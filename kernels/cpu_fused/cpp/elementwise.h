// Loops over the first `count` numbers of lines, each of which is worked on alone. `Channels` is OneChannel or
// ManyChannels; what is in memory, Real or Stored.

#pragma once

#include "activation.h"
#include "channels.h"
#include "conversion.h"
#include "streaming.h"

namespace {

// y = activation(z + residual), z the normalized x; y = activation(z) where the residual is null.
template <class Input, int N, class Channels, class Store = Kept>
inline void activate(const Input* x, const Stored* residual, Lines<N> lines, Index count, Channels channels,
                     Activation activation, Stored* y, Store store = {}) {
    const auto with = [&](auto activated, auto pace) {
        const auto to_each = [&](auto added) {
            for_numbers(pace, count, [&](auto kind, Index i) {
                using Number = decltype(kind);
                const Channel<Number> channel = channels.template at<Number>(i);
#pragma GCC unroll 4
                for (int k = 0; k < N; k++) {
                    const Index at = k * lines.apart + i;
                    store.put(activated(added(channel.normalized(get<Number>(x + at)), at)), y + at);
                }
            });
        };
        if (residual)
            to_each([&](auto z, Index i) { return z + get<decltype(z)>(residual + i); });
        else
            to_each([](auto z, Index) { return z; });
    };
    if (activation == NONE) with([](auto z) { return z; }, Quick());
    if (activation == SIGMOID) with([](auto z) { return sigmoid(z); }, Slow());
    if (activation == RELU) with([](auto z) { return z < decltype(z){} ? decltype(z){} : z; }, Quick());  // NaN stays
}

// Calls body with the function that makes dz of dy and z, and how fast that is, where there is an activation.
template <class Body>
inline void with_slope(Activation activation, Body body) {
    if (activation == SIGMOID) body([](auto dy, auto z) { return dy * sigmoid_slope(z); }, Slow());
    if (activation == RELU)
        body([](auto dy, auto z) { return z <= decltype(z){} ? decltype(z){} : dy; }, Quick());  // NaN lets pass
}

// A function that makes dz of number i, the gradient before the activation, and notes it.
template <class Input, class Channels, class Slope>
inline auto noting(const Input* x, const Stored* dy, Channels channels, Slope times_slope, Real* note) {
    return [=](auto kind, Index i) {
        using Number = decltype(kind);
        const Number z = channels.template at<Number>(i).normalized(get<Number>(x + i));
        const Number dz = times_slope(get<Number>(dy + i), z);
        put(dz, note + i);
        return dz;
    };
}

// dx from dz.
template <class Gradient, int N, class Channels, class Store = Kept>
inline void input_gradient(const Stored* x, const Gradient* dz, Lines<N> lines, Index count, Channels channels,
                           Stored* dx, Store store = {}) {
    for_numbers(count, [&](auto kind, Index i) {
        using Number = decltype(kind);
        const Channel<Number> channel = channels.template at<Number>(i);
#pragma GCC unroll 4
        for (int k = 0; k < N; k++) {
            const Index at = k * lines.apart + i;
            store.put(channel.through_statistics(get<Number>(x + at)) + channel.scale * get<Number>(dz + at), dx + at);
        }
    });
}

}  // namespace
