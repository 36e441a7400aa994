// The two sums that the backward needs of each channel: they are the gradients of bias and, after division by std,
// weight.

#pragma once

#include "vectors.h"

namespace {

struct Sums {
    double dz = 0, dz_x = 0;  // sum(dz) and sum(dz (x - mean))

    void merge(const Sums& other) { dz += other.dz, dz_x += other.dz_x; }
};

// Sums over the pixels of planes, in four accumulators: two for each sum. They are kept from one small plane to the
// next, and are added to doubles every TILE numbers.
class RunningSums {
public:
    void add(const Real* x, const Real* dz, Index count, Real mean) {
        Index i = 0;
        for (; i + 2 * LANES <= count; i += 2 * LANES) {
            const Vector u = load(dz, i), v = load(dz, i + LANES);
            a += u, b += v;
            c += u * (load(x, i) - mean), d += v * (load(x, i + LANES) - mean);
        }
        for (; i < count; i++) sums.dz += dz[i], sums.dz_x += double(dz[i]) * (x[i] - mean);
        pending += count;
        if (pending >= TILE) settle();
    }

    Sums result() {
        settle();
        return sums;
    }

private:
    void settle() {
        sums.dz += total(a + b), sums.dz_x += total(c) + total(d);
        a = b = c = d = Vector{};
        pending = 0;
    }

    Vector a{}, b{}, c{}, d{};
    Index pending = 0;
    Sums sums;
};

}  // namespace
