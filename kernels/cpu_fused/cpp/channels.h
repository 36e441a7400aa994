// What the loops need to know of a channel, worked out once so that they only multiply and add:
//
//     z  = (x - mean) * scale + bias                   mean in Real; the rest of its digits is in the bias
//     dx = (x - mean) * slope + level + scale * dz     slope and level are 0 in evaluation

#pragma once

#include "vectors.h"

#include <cmath>
#include <vector>

namespace {

template <class Number>
struct Channel {
    Number mean, scale, bias, slope, level;

    Number normalized(Number x) const { return (x - mean) * scale + bias; }

    // The part of dx that comes through mean and std. In evaluation there is none, not even where x is NaN.
    Number through_statistics(Number x) const {
        const Number part = (x - mean) * slope + level;
        return ((slope == Number{}) & (level == Number{})) ? Number{} : part;
    }
};

// In planes: all numbers of a run are of one channel.
struct OneChannel {
    Channel<Real> all;
    Real sign;  // of scale: 1, -1, or 0, and NaN for NaN

    template <class Number>
    Channel<Number> at(Index) const {
        return {Number{} + all.mean, Number{} + all.scale, Number{} + all.bias, Number{} + all.slope,
                Number{} + all.level};
    }
};

// In rows: each number of a run is of the next channel.
struct ManyChannels {
    const Real* first;
    Index channels;

    template <class Number>
    Channel<Number> at(Index i) const {
        return {get<Number>(first + i), get<Number>(first + channels + i), get<Number>(first + 2 * channels + i),
                get<Number>(first + 3 * channels + i), get<Number>(first + 4 * channels + i)};
    }

    Real sign(Index i) const { return first[5 * channels + i]; }
};

// The numbers of all channels, one array for each: what a vector of channels needs is next to each other.
class ChannelTable {
public:
    ChannelTable(Index channels, const Real* weight, const Real* bias)
        : channels(channels), weight(weight), bias(bias), numbers(6 * channels) {
        for (Index c = 0; c < channels; c++) at(5, c) = scale(c) > 0 ? 1 : scale(c) < 0 ? -1 : Real(scale(c));
    }

    void set_forward(Index c, double mean, double inverse_std) {
        at(0, c) = Real(mean);
        at(1, c) = Real(inverse_std * scale(c));
        at(2, c) = Real((bias ? bias[c] : 0.0) - rest(mean) * inverse_std * scale(c));
    }

    // From the sums over the `count` values that mean and std were calculated from.
    void set_backward(Index c, double mean, double inverse_std, double dbias, double dweight, double count) {
        const double slope = -scale(c) * inverse_std * inverse_std * dweight / count;
        at(3, c) = Real(slope);
        at(4, c) = Real(-scale(c) * inverse_std * dbias / count - rest(mean) * slope);
    }

    OneChannel one(Index c) { return {{at(0, c), at(1, c), at(2, c), at(3, c), at(4, c)}, at(5, c)}; }
    ManyChannels from(Index c) const { return {numbers.data() + c, channels}; }

    // The digits of a mean that Real has no room for.
    static double rest(double mean) { return std::isfinite(Real(mean)) ? mean - Real(mean) : 0; }

private:
    double scale(Index c) const { return weight ? double(weight[c]) : 1; }

    Real& at(int what, Index c) { return numbers[what * channels + c]; }

    Index channels;
    const Real *weight, *bias;
    std::vector<Real> numbers;
};

}  // namespace
