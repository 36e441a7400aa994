// The four steps on rows, (N, H, W, C), and on matrices, (N, C): vectors of channels of one pixel.

#pragma once

#include "elementwise.h"
#include "gradient_sums.h"
#include "layout.h"
#include "pool.h"
#include "residual.h"
#include "statistics.h"

#include <algorithm>
#include <vector>

namespace {

class Rows : Sizes {
public:
    explicit Rows(const Plan& plan) : Sizes(plan) {}

    Index scratch() const { return std::max(TILE, plan.channels); }

    Index channels_at_a_time() const { return plan.channels; }

    void statistics(const Stored* x, ChannelTable&, Part part, Moments* moments, Stored*, Scratch&) const {
        const Index count = part.channels_end - part.channel;
        std::vector<Real> numbers(7 * count);
        Real* __restrict guess = numbers.data();
        Real* __restrict sum = guess + count;
        Real* __restrict squares = sum + count;
        Real* scratch = squares + count;
        for (Index r = part.image * pixels, end = part.images_end * pixels; r < end; r += ROWS) {
            const Index rows = std::min(ROWS, end - r);
            const Stored* top = x + r * plan.channels + part.channel;
            if (r == part.image * pixels) {
                guess_from(top, std::min<Index>(rows, 16), count, guess, scratch);
            } else {
                for (Index i = 0; i < count; i++) guess[i] = Real(moments[part.channel + i].mean);
            }
            std::fill(sum, sum + 2 * count, Real(0));
            Index done = 0;
            for (; done + 4 <= rows; done += 4) {
                const Real* row[4];
                for (Index k = 0; k < 4; k++)
                    row[k] = widened(top + (done + k) * plan.channels, count, scratch + k * count);
                INDEPENDENT_ITERATIONS
                for (Index i = 0; i < count; i++) {
                    const Real a = row[0][i] - guess[i], b = row[1][i] - guess[i];
                    const Real c = row[2][i] - guess[i], d = row[3][i] - guess[i];
                    sum[i] += (a + b) + (c + d), squares[i] += (a * a + b * b) + (c * c + d * d);
                }
            }
            for (; done < rows; done++) {
                const Real* row = widened(top + done * plan.channels, count, scratch);
                INDEPENDENT_ITERATIONS
                for (Index i = 0; i < count; i++) {
                    const Real off = row[i] - guess[i];
                    sum[i] += off, squares[i] += off * off;
                }
            }
            INDEPENDENT_ITERATIONS
            for (Index i = 0; i < count; i++) {
                Moments column{double(rows), 0, 0};
                if (!from_guess(guess[i], sum[i], squares[i], column))
                    column = moments_one_by_one(top + i, rows, 1, plan.channels);
                moments[part.channel + i].merge(column);
            }
        }
    }

    WITH_ALL_IT_CALLS void apply(const Stored* x, const Stored* residual, ChannelTable& table, Part part, Stored* y,
                                 Scratch& scratch) const {
        const auto activation = Activation(plan.activation);
        const ManyChannels each = table.from(part.channel);
        const Index count = part.channels_end - part.channel;
        for_each_pixel(part, [&](Index in, Index out, bool whole) {
            if (!whole) return;
            const Real* input = widened(x + in, count, scratch.at(INPUT));
            if (plan.pool) input = choose(x + in, count, each, scratch);
            Real* output = target(y + out, scratch.at(OUTPUT));
            const Real* added = residual ? widened(residual + in, count, scratch.at(RESIDUAL)) : nullptr;
            activate(input, added, count, each, activation, output);
            narrow(output, count, y + out);
        });
    }

    WITH_ALL_IT_CALLS void backward_sums(const Stored* x, const Stored* dy, ChannelTable& table, Part part, Sums* sums,
                                         Real* notes, Scratch& scratch) const {
        const auto activation = Activation(plan.activation);
        const ManyChannels each = table.from(part.channel);
        const Index count = part.channels_end - part.channel;
        std::vector<Real> of_dz(count), of_dz_x(count);
        Real* __restrict a = of_dz.data();
        Real* __restrict b = of_dz_x.data();
        Index pending = 0;
        const auto settle = [&] {
            for (Index i = 0; i < count; i++) sums[part.channel + i].merge({a[i], b[i]});
            std::fill(a, a + count, Real(0));
            std::fill(b, b + count, Real(0));
            pending = 0;
        };
        for_each_pixel(part, [&](Index in, Index out, bool whole) {
            if (!whole) return;
            const Real* input = widened(x + in, count, scratch.at(INPUT));
            if (plan.pool) input = choose(x + in, count, each, scratch);
            Real* note = notes ? notes + in : scratch.at(WITHIN);
            if (plan.pool && notes) std::copy_n(scratch.at(WHICH), count, note + plan.channels);
            const Real* dz = widened(dy + out, count, scratch.at(GRADIENT));
            dz = before_activation(input, dz, count, each, activation, note);
            for_numbers(count, [&](auto kind, Index i) {
                using Number = decltype(kind);
                const Number u = get<Number>(dz + i);
                put(get<Number>(a + i) + u, a + i);
                put(get<Number>(b + i) + u * (get<Number>(input + i) - each.at<Number>(i).mean), b + i);
            });
            if (++pending == ROWS_IN_REAL) settle();
        });
        settle();
    }

    // The same with a residual. dz goes into the sums unrounded, and at once: there are four tensors to stream through.
    WITH_ALL_IT_CALLS void residual_sums(const Stored* x, const Stored* dy, WithResidual with, ChannelTable& table,
                                         Part part, Sums* sums, Scratch& scratch) const {
        const ManyChannels each = table.from(part.channel);
        const Index count = part.channels_end - part.channel, end = part.images_end * pixels;
        std::vector<Real> of_both(2 * count);
        Real *const a = of_both.data(), *const b = a + count;
        with_slope_from_output(Activation(plan.activation), [&](auto times_slope) {
            for (Index r = part.image * pixels, pending = 1; r < end; r++, pending++) {
                const Index at = r * plan.channels + part.channel;
                const Real* input = widened(x + at, count, scratch.at(INPUT));
                const Real* gradient = widened(dy + at, count, scratch.at(GRADIENT));
                const Real* output = widened(with.y + at, count, scratch.at(OUTPUT));
                Real* dz = target(with.dz + at, scratch.at(WITHIN));
                for_numbers(count, [=](auto kind, Index i) {
                    using Number = decltype(kind);
                    const Number u = times_slope(get<Number>(gradient + i), get<Number>(output + i));
                    put(u, dz + i);
                    put(get<Number>(a + i) + u, a + i);
                    put(get<Number>(b + i) + u * (get<Number>(input + i) - each.at<Number>(i).mean), b + i);
                });
                narrow(dz, count, with.dz + at);
                if (pending % ROWS_IN_REAL && r + 1 < end) continue;
                for (Index i = 0; i < count; i++) sums[part.channel + i].merge({a[i], b[i]});
                std::fill(a, a + 2 * count, Real(0));
            }
        });
    }

    WITH_ALL_IT_CALLS void backward_apply(const Stored* x, const Stored* dy, ChannelTable& table, Part part, Stored* dx,
                                          const Real* notes, Scratch& scratch) const {
        const ManyChannels each = table.from(part.channel);
        const Index count = part.channels_end - part.channel;
        for_each_pixel(part, [&](Index in, Index out, bool whole) {
            const Real* dz = nullptr;
            if (plan.activation != NONE)
                dz = notes + in;
            else if (whole)
                dz = widened(dy + out, count, scratch.at(GRADIENT));
            if (plan.pool) {
                if (whole) {  // the notes have to be read before dx takes their place
                    std::copy_n(dz, count, scratch.at(WITHIN));
                    std::copy_n(notes + in + plan.channels, count, scratch.at(WHICH));
                }
                route_window(x, whole, in, count, each, dx, scratch);
            } else {
                const Real* pixel = widened(x + in, count, scratch.at(INPUT));
                Real* output = target(dx + in, scratch.at(OUTPUT));
                input_gradient(pixel, dz, count, each, output);
                narrow(output, count, dx + in);
            }
        });
    }

private:
    static constexpr Index ROWS = 256;         // that statistics takes at a time
    static constexpr Index ROWS_IN_REAL = 64;  // that the backward adds up before it goes on in double

    void guess_from(const Stored* top, Index rows, Index count, Real* __restrict guess, Real* scratch) const {
        std::fill(guess, guess + count, Real(0));
        for (Index r = 0; r < rows; r++) {
            const Real* row = widened(top + r * plan.channels, count, scratch);
            INDEPENDENT_ITERATIONS
            for (Index i = 0; i < count; i++) guess[i] += row[i];
        }
        INDEPENDENT_ITERATIONS
        for (Index i = 0; i < count; i++) guess[i] /= Real(rows);
    }

    // Calls body(input's start, output's start, whole) for each pixel of the output. With a pool, the input's start is
    // a window's first pixel, and where height or width is odd the last windows are not whole: they have no output.
    template <class Body>
    void for_each_pixel(Part part, Body body) const {
        const Index channels = plan.channels;
        if (!plan.pool) {
            for (Index r = part.image * pixels; r < part.images_end * pixels; r++)
                body(r * channels + part.channel, r * channels + part.channel, true);
            return;
        }
        for (Index n = part.image; n < part.images_end; n++)
            for (Index i = 0; 2 * i < plan.height; i++)
                for (Index j = 0; 2 * j < plan.width; j++) {
                    const Index in = n * pixels + 2 * i * plan.width + 2 * j;
                    const Index out = n * output_pixels + i * pooled_width + j;
                    body(in * channels + part.channel, out * channels + part.channel,
                         i < pooled_height && j < pooled_width);
                }
    }

    // Of the window at x, for each channel, the x that counts; its number goes to WHICH.
    const Real* choose(const Stored* x, Index count, ManyChannels each, Scratch& scratch) const {
        const Index places[] = {0, 1, plan.width, plan.width + 1};
        Real* __restrict chosen = scratch.at(CHOSEN);
        Real* __restrict which = scratch.at(WHICH);
        INDEPENDENT_ITERATIONS
        for (Index i = 0; i < count; i++) chosen[i] = Real(x[i]), which[i] = 0;
        for (int number = 1; number < 4; number++) {
            const Real* other = widened(x + places[number] * plan.channels, count, scratch.at(INPUT));
            INDEPENDENT_ITERATIONS
            for (Index i = 0; i < count; i++) {
                Winner winner{chosen[i], which[i]};
                winner.challenge(other[i], Real(number), each.sign(i));
                chosen[i] = winner.x, which[i] = winner.number;
            }
        }
        return chosen;
    }

    // dx at those pixels of the window at `in` that are in the image.
    void route_window(const Stored* x, bool whole, Index in, Index count, ManyChannels each, Stored* dx,
                      Scratch& scratch) const {
        const Index pixel = in / plan.channels % pixels, i = pixel / plan.width, j = pixel % plan.width;
        const Real *dz = scratch.at(WITHIN), *which = scratch.at(WHICH);
        for (int number = 0; number < 4; number++) {
            const Index down = number / 2, right = number % 2;
            if (i + down >= plan.height || j + right >= plan.width) continue;
            const Index at = in + (down * plan.width + right) * plan.channels;
            const Real* input = widened(x + at, count, scratch.at(INPUT));
            Real* output = target(dx + at, scratch.at(OUTPUT));
            INDEPENDENT_ITERATIONS
            for (Index k = 0; k < count; k++) {
                const Channel<Real> channel = each.at<Real>(k);
                output[k] =
                    channel.through_statistics(input[k]) + (whole && which[k] == number ? channel.scale * dz[k] : 0);
            }
            narrow(output, count, dx + at);
        }
    }
};

}  // namespace
