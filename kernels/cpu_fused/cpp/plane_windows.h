// Pooling in planes: choose the pixel that counts of each window, and route gradients back to it. Rows shorter than a
// vector, and weights that are 0 or NaN, are done window by window; all others in vectors.

#pragma once

#include "channels.h"
#include "layout.h"
#include "pool.h"

#include <algorithm>

namespace {

class PlaneWindows : protected Sizes {
protected:
    explicit PlaneWindows(const Plan& plan) : Sizes(plan) {}

    // The x that counts, of each of `windows` windows.
    const Real* choose(const Real* x, Index windows, Real sign, Real* chosen) const {
        if (plan.width < LANES || !(sign * sign > 0)) {
            for_each_window(windows, [&](Index place, Index window) { chosen[window] = winner(x + place, sign).x; });
        } else if (plan.training) {
            sign > 0 ? choose<LARGEST, true>(x, windows, chosen) : choose<SMALLEST, true>(x, windows, chosen);
        } else {
            sign > 0 ? choose<LARGEST, false>(x, windows, chosen) : choose<SMALLEST, false>(x, windows, chosen);
        }
        return chosen;
    }

    // dx for pairs of image rows: the pixel that counts gets its window's gradient.
    void route_windows(const Real* x, const Real* gradient, Index windows, OneChannel channel, Real* dx) const {
        if (plan.width < LANES || !plan.training || !(channel.sign * channel.sign > 0))
            for_each_window(windows, [&](Index place, Index window) {
                const Real which = winner(x + place, channel.sign).number;
                for (int number = 0; number < 4; number++) {
                    const Index at = place + number / 2 * plan.width + number % 2;
                    dx[at] = channel.all.through_statistics(x[at]) + (which == number ? gradient[window] : 0);
                }
            });
        else if (channel.sign > 0)
            route_in_vectors<LARGEST>(x, gradient, windows, channel, dx);
        else
            route_in_vectors<SMALLEST>(x, gradient, windows, channel, dx);
        if (plan.width % 2)
            for (Index i = plan.width - 1; i < windows / pooled_width * 2 * plan.width; i += plan.width)
                dx[i] = channel.all.through_statistics(x[i]);
    }

private:
    template <Order ORDER, bool TRAINING>
    void choose(const Real* x, Index windows, Real* chosen) const {
        const auto of_rows = [&](Index at) {
            return that_counts<ORDER, TRAINING>(load(x, at), load(x, at + plan.width));
        };
        for_each_vector_of_windows(windows, [&](auto window, Halves at) {
            const Vector one = of_rows(at.one), two = of_rows(at.two);
            store(that_counts<ORDER, TRAINING>(Pair::left(one, two), Pair::right(one, two)), chosen, window);
        });
    }

    template <Order ORDER>
    void route_in_vectors(const Real* x, const Real* gradient, Index windows, OneChannel same, Real* dx) const {
        const auto channel = same.at<Vector>(0);
        const Vector none{};
        for_each_vector_of_windows(windows, [&](auto window, Halves at) {
            const Halves of = halves(window);
            for (int half = 0; half < 2; half++) {
                const Index place = half ? at.two : at.one, start = half ? of.two : of.one;
                const Vector above = load(x, place), below = load(x, place + plan.width);
                const Vector of_rows = that_counts<ORDER, true>(above, below);
                const Vector counts = that_counts<ORDER, true>(of_rows, Pair::swapped(of_rows));
                // The first of equal ones: the one with the lowest number.
                const Vector number = above == counts ? Pair::NUMBER : none + 4;
                const Vector number_below = below == counts ? Pair::NUMBER + 2 : none + 4;
                const Vector lower = that_counts<SMALLEST, true>(number, number_below);
                const Vector lowest = that_counts<SMALLEST, true>(lower, Pair::swapped(lower));
                const Vector all = Pair::doubled(load(gradient, Halves{start, start}));
                const Vector routed = number == lowest ? all : none, routed_below = number_below == lowest ? all : none;
                store((above - channel.mean) * channel.slope + (channel.level + routed), dx, place);
                store((below - channel.mean) * channel.slope + (channel.level + routed_below), dx, place + plan.width);
            }
        });
    }

    Winner<Real> winner(const Real* x, Real sign) const {
        Winner<Real> winner{x[0]};
        winner.challenge(x[1], 1, sign);
        winner.challenge(x[plan.width], 2, sign);
        winner.challenge(x[plan.width + 1], 3, sign);
        return winner;
    }

    // Calls body(place of the first pixel, window) for one window at a time.
    template <class Body>
    void for_each_window(Index windows, Body body) const {
        for (Index window = 0, row = 0; window < windows; window += pooled_width, row += 2 * plan.width) {
            INDEPENDENT_ITERATIONS
            for (Index j = 0; j < pooled_width; j++) body(row + 2 * j, window + j);
        }
    }

    // Calls body(window, at) for a vector of windows at a time. Its pixels are two vectors of the upper image row, at
    // at.one and at.two, and the two below these:
    //
    //     at.one                at.two
    //     0 1 0 1 0 1 0 1       0 1 0 1 0 1 0 1     the upper row of eight windows
    //     2 3 2 3 2 3 2 3       2 3 2 3 2 3 2 3     the lower row
    //
    // at.two may be in the next pair of image rows: LeNet's rows are short, and a loop over each would take longer to
    // start and to end than to run. `window` is an Index where the windows follow each other, else Halves.
    template <class Body>
    void for_each_vector_of_windows(Index windows, Body body) const {
        const Index columns = 2 * pooled_width;
        Index row = 0, column = 0;
        const auto next_row = [&] { column = 0, row += 2 * plan.width; };
        if (plan.width % LANES == 0) {
            const auto next = [&] {
                const Index here = row + column;
                column += LANES;
                if (column == columns) next_row();
                return here;
            };
            for (Index k = 0; k < windows; k += LANES) {
                const Index one = next();  // the tail is half a vector: it is taken for both halves
                if (k + LANES / 2 < windows)
                    body(k, Halves{one, next()});
                else
                    body(Halves{k, k}, Halves{one, one});
            }
            return;
        }
        // The tail of each image row: its last vector ends with the row, and repeats some windows of the vector before.
        Index window = 0;
        const auto next = [&](Index& its_window, Index& its_place) {
            const Index start = std::min(column, columns - LANES);
            its_place = row + start, its_window = window + start / 2;
            column += LANES;
            if (column >= columns) next_row(), window += pooled_width;
        };
        while (window < windows) {
            Halves pair, at;
            next(pair.one, at.one);
            pair.two = pair.one, at.two = at.one;
            if (window < windows) next(pair.two, at.two);
            body(pair, at);
        }
    }

    static Halves halves(Halves windows) { return windows; }
    static Halves halves(Index window) { return {window, window + LANES / 2}; }
};

}  // namespace
