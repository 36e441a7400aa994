// Mean and variance. E[x^2] - E[x]^2 would lose the digits of the variance where the mean is large. So the sums are
// those of x - guess, with a guess near the mean; where that turns out too far off, a second or third way is taken.

#pragma once

#include "conversion.h"

#include <cmath>

namespace {

struct Moments {
    double count = 0, mean = 0, m2 = 0;  // m2: sum of (x - mean)^2

    // Chan, Golub & LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances".
    void merge(const Moments& other) {
        if (!other.count) return;
        if (!count) {
            *this = other;
            return;
        }
        const double sum = count + other.count, difference = other.mean - mean;
        // An infinite mean stays infinite, as that of one long sum would.
        mean = std::isfinite(difference) ? mean + difference * (other.count / sum)
                                         : (count * mean + other.count * other.mean) / sum;
        m2 += other.m2 + difference * difference * (count * other.count / sum);
        count = sum;
    }
};

// Number by number in double: slow, and always right.
Moments moments_one_by_one(Runs of) {
    const auto [x, runs, length, stride] = of;
    Moments all{double(runs * length), 0, 0};
    for (Index r = 0; r < runs; r++)
        for (Index i = 0; i < length; i++) all.mean += double(get<Real>(x + r * stride + i));
    all.mean /= all.count;
    for (Index r = 0; r < runs; r++)
        for (Index i = 0; i < length; i++) {
            const double off = double(get<Real>(x + r * stride + i)) - all.mean;
            all.m2 += off * off;
        }
    return all;
}

// Mean and m2 from the sums of x - guess and of its square. False, and the result is of no use, if the guess is so far
// off that m2 is the small difference of large numbers, or if a float's square may have become 0 or infinite.
inline bool from_guess(double guess, double sum, double squares, Moments& result) {
    const double off = sum / result.count, correction = sum * off;
    result.mean = guess + off;
    result.m2 = squares - correction;
    return result.m2 >= correction && squares > 1e-30 * result.count && squares < 1e38;
}

// Approximately: a guess.
double mean_of(Runs of) {
    const auto [x, runs, length, stride] = of;
    Vector a{}, b{};
    double rest = 0;
    for (Index r = 0; r < runs; r++) {
        const Stored* run = x + r * stride;
        Index i = 0;
        for (; i + 2 * LANES <= length; i += 2 * LANES) a += get<Vector>(run + i), b += get<Vector>(run + i + LANES);
        for (; i < length; i++) rest += get<Real>(run + i);
    }
    return (total(a) + total(b) + rest) / double(runs * length);
}

bool moments_by_guess(Runs of, Real guess, Moments& result) {
    const auto [x, runs, length, stride] = of;
    Vector a{}, b{}, c{}, d{};
    double sum = 0, squares = 0;
    for (Index r = 0; r < runs; r++) {
        const Stored* run = x + r * stride;
        Index i = 0;
        for (; i + 2 * LANES <= length; i += 2 * LANES) {
            const Vector u = get<Vector>(run + i) - guess, v = get<Vector>(run + i + LANES) - guess;
            a += u, b += v, c += u * u, d += v * v;
        }
        for (; i < length; i++) {
            const double off = double(get<Real>(run + i)) - guess;
            sum += off, squares += off * off;
        }
    }
    result.count = double(runs * length);
    return from_guess(guess, total(a) + total(b) + sum, total(c) + total(d) + squares, result);
}

// `so_far`: the moments of the channel's numbers before these. Their mean is usually a good guess, so one pass is
// enough.
Moments moments_of(Runs of, const Moments& so_far) {
    Moments result;
    if (so_far.count && moments_by_guess(of, Real(so_far.mean), result)) return result;
    if (moments_by_guess(of, Real(mean_of(of)), result)) return result;
    return moments_one_by_one(of);
}

}  // namespace
