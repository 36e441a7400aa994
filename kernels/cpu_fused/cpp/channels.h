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

// In rows: each number of a line is of the next channel, and after the last one comes the first one again.
struct ManyChannels {
    const Real* first;
    Index line;

    template <class Number>
    Channel<Number> at(Index i) const {
        return {get<Number>(first + i), get<Number>(first + line + i), get<Number>(first + 2 * line + i),
                get<Number>(first + 3 * line + i), get<Number>(first + 4 * line + i)};
    }

    template <class Number>
    Number sign(Index i) const {
        return get<Number>(first + 5 * line + i);
    }
};

// The numbers of all channels, one array for each: what a vector of channels needs is next to each other. The arrays
// are `copies` times as long as there are channels: a line of rows may be several pixels.
class ChannelTable {
public:
    ChannelTable(Index channels, Index copies, const Real* weight, const Real* bias)
        : channels(channels), line(channels * copies), weight(weight), bias(bias), numbers(6 * line) {}

    void set_signs() {
        for (Index c = 0; c < channels; c++) set(5, c, scale(c) > 0 ? 1 : scale(c) < 0 ? -1 : Real(scale(c)));
    }

    void set_forward(Index c, double mean, double inverse_std) {
        set(0, c, Real(mean));
        set(1, c, Real(inverse_std * scale(c)));
        set(2, c, Real((bias ? bias[c] : 0.0) - rest(mean) * inverse_std * scale(c)));
    }

    // From the sums over the `count` values that mean and std were calculated from.
    void set_backward(Index c, double mean, double inverse_std, double dbias, double dweight, double count) {
        const double slope = -scale(c) * inverse_std * inverse_std * dweight / count;
        set(3, c, Real(slope));
        set(4, c, Real(-scale(c) * inverse_std * dbias / count - rest(mean) * slope));
    }

    OneChannel one(Index c) const { return {{at(0, c), at(1, c), at(2, c), at(3, c), at(4, c)}, at(5, c)}; }
    ManyChannels from(Index column) const { return {numbers.data() + column, line}; }

    // The digits of a mean that Real has no room for.
    static double rest(double mean) { return std::isfinite(Real(mean)) ? mean - Real(mean) : 0; }

private:
    double scale(Index c) const { return weight ? double(weight[c]) : 1; }

    Real at(int what, Index c) const { return numbers[what * line + c]; }

    void set(int what, Index c, Real number) {
        for (Index i = c; i < line; i += channels) numbers[what * line + i] = number;
    }

    Index channels, line;
    const Real *weight, *bias;
    std::vector<Real> numbers;
};

}  // namespace
