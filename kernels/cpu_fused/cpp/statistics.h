// Mean and variance. E[x^2] - E[x]^2 would lose the digits of the variance where the mean is large. So the sums are
// those of x - guess, with a guess near the mean; where that turns out too far off, a second or third way is taken.

#pragma once

#include "conversion.h"

#include <algorithm>
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

// Mean and m2 from the sums of x - guess and of its square. False, and the mean is no more than a nearer guess, if this
// one is so far off that m2 is the small difference of large numbers, or if a float's square may have become 0 or
// infinite.
inline bool from_guess(double guess, double sum, double squares, Moments& result) {
    const double off = sum / result.count, correction = sum * off;
    result.mean = guess + off;
    result.m2 = squares - correction;
    return result.m2 >= correction && squares > 1e-30 * result.count && squares < 1e38;
}

// The sums of x - guess and of its square, over runs that are met one after the other.
class CenteredSums {
public:
    explicit CenteredSums(double guess = 0) : guess(Real(guess)) {}

    void add(Runs of) {
        for (Index r = 0; r < of.runs; r++) add(of.x + r * of.stride, of.length);
    }

    void add(const Stored* x, Index length) {
        Vector a{}, b{}, c{}, d{}, aa{}, bb{}, cc{}, dd{};
        Index i = 0;
        for (; i + 4 * LANES <= length; i += 4 * LANES) {
            const Vector s = off(x + i), t = off(x + i + LANES);
            const Vector u = off(x + i + 2 * LANES), v = off(x + i + 3 * LANES);
            a += s, b += t, c += u, d += v;
            aa += s * s, bb += t * t, cc += u * u, dd += v * v;
        }
        for (; i + LANES <= length; i += LANES) {
            const Vector u = off(x + i);
            a += u, aa += u * u;
        }
        if (i < length && length >= LANES) {
            const Vector u = last_lanes(off(x + length - LANES), length - i);
            b += u, bb += u * u;
            i = length;
        }
        sums += (a + b) + (c + d), squares += (aa + bb) + (cc + dd);
        for (; i < length; i++) {
            const double u = double(get<Real>(x + i)) - guess;
            rest += u, rest_squares += u * u;
        }
    }

    // As `from_guess`; `result` knows how many numbers there were.
    bool give(Moments& result) const {
        return from_guess(guess, total(sums) + rest, total(squares) + rest_squares, result);
    }

private:
    Vector off(const Stored* x) const { return get<Vector>(x) - guess; }

    Vector sums{}, squares{};
    double rest = 0, rest_squares = 0;
    Real guess;
};

// Near the mean of the numbers from x on. `so_far`: the moments of those before, whose mean is usually as near.
inline double guess_of(const Stored* x, Index length, const Moments& so_far) {
    if (so_far.count) return so_far.mean;
    const Index few = std::min(length, 4 * LANES);
    double sum = 0;
    for (Index i = 0; i < few; i++) sum += get<Real>(x + i);
    return sum / double(few);
}

// Of runs whose sums are known. Usually their guess was near enough, so one pass has been enough.
Moments moments_of(Runs of, const CenteredSums& sums) {
    Moments result{double(of.runs * of.length), 0, 0};
    if (sums.give(result)) return result;
    CenteredSums again(result.mean);
    again.add(of);
    if (again.give(result)) return result;
    return moments_one_by_one(of);
}

Moments moments_of(Runs of, const Moments& so_far) {
    CenteredSums sums(guess_of(of.x, of.length, so_far));
    sums.add(of);
    return moments_of(of, sums);
}

}  // namespace
