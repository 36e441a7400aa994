// The two sums that the backward needs of each channel: they are the gradients of bias and, after division by std,
// weight.

#pragma once

#include "channels.h"
#include "conversion.h"

#include <algorithm>
#include <vector>

namespace {

struct Sums {
    double dz = 0, dz_x = 0;  // sum(dz) and sum(dz (x - mean))

    void merge(const Sums& other) { dz += other.dz, dz_x += other.dz_x; }
};

// Sums over the pixels of planes. They are kept in vectors from one small plane to the next, and are added to doubles
// every TILE numbers.
class RunningSums {
public:
    // dz(Number{}, i) is dz of number i. It may be asked twice for some of the last numbers.
    template <class Input, class Gradient>
    void add(const Input* x, Index count, Real mean, Gradient dz) {
        Vector a{}, b{}, c{}, d{};
        Index i = 0;
        for (; i + 2 * LANES <= count; i += 2 * LANES) {
            const Vector u = dz(Vector{}, i), v = dz(Vector{}, i + LANES);
            a += u, b += v;
            c += u * (get<Vector>(x + i) - mean), d += v * (get<Vector>(x + i + LANES) - mean);
        }
        if (i + LANES <= count) {
            const Vector u = dz(Vector{}, i);
            a += u, c += u * (get<Vector>(x + i) - mean);
            i += LANES;
        }
        if (i < count && count >= LANES) {
            const Index last = count - LANES;
            const Vector u = last_lanes(dz(Vector{}, last), count - i);
            b += u, d += u * last_lanes(get<Vector>(x + last) - mean, count - i);
            i = count;
        }
        of_dz += a + b, of_dz_x += c + d;
        for (; i < count; i++) {
            const double u = dz(Real{}, i);
            sums.dz += u, sums.dz_x += u * (get<Real>(x + i) - mean);
        }
        pending += count;
        if (pending >= TILE) settle();
    }

    Sums result() {
        settle();
        return sums;
    }

private:
    void settle() {
        sums.dz += total(of_dz), sums.dz_x += total(of_dz_x);
        of_dz = of_dz_x = Vector{};
        pending = 0;
    }

    Vector of_dz{}, of_dz_x{};
    Index pending = 0;
    Sums sums;
};

// Sums over rows: of each column of a line, which are added to doubles every LINES_IN_REAL lines.
class ColumnSums {
public:
    // `sums`: of the first of the channels, which are in a line `copies` times.
    ColumnSums(Sums* sums, Index channels, Index copies)
        : sums(sums), channels(channels), width(copies * channels), of_columns(2 * width) {}

    // Some numbers of each line, from `column` on. dz(channel, x, k, i) is dz of number i of line k.
    template <class Input, int N, class Pace, class Gradient>
    void add(const Input* x, Lines<N> lines, Index column, Index count, ManyChannels each, Pace pace, Gradient dz) {
        Real *const a = of_columns.data() + column, *const b = a + width;
        for_numbers(pace, count, [=](auto kind, Index i) {
            using Number = decltype(kind);
            const Channel<Number> channel = each.at<Number>(i);
            Number of_dz{}, of_dz_x{};
#pragma GCC unroll 4
            for (Index k = 0; k < N; k++) {
                const Number input = get<Number>(x + k * lines.apart + i), u = dz(channel, input, k, i);
                of_dz += u, of_dz_x += u * (input - channel.mean);
            }
            put(get<Number>(a + i) + of_dz, a + i);
            put(get<Number>(b + i) + of_dz_x, b + i);
        });
        pending += N * count;
        if (pending >= LINES_IN_REAL * width) settle();
    }

    void settle() {
        Real *const a = of_columns.data(), *const b = a + width;
        for (Index i = 0; i < width; i += channels)
            for (Index c = 0; c < channels; c++) sums[c].merge({a[i + c], b[i + c]});
        std::fill(a, a + 2 * width, Real(0));
        pending = 0;
    }

private:
    static constexpr Index LINES_IN_REAL = 256;

    Sums* sums;
    Index channels, width, pending = 0;
    std::vector<Real> of_columns;
};

}  // namespace
