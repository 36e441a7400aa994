// The four steps on rows, (N, H, W, C), and on matrices, (N, C): vectors of channels.

#pragma once

#include "elementwise.h"
#include "gradient_sums.h"
#include "residual.h"
#include "row_windows.h"
#include "statistics.h"

#include <algorithm>
#include <vector>

namespace {

class Rows : RowWindows {
public:
    using RowLines::copies;

    explicit Rows(const Plan& plan) : RowWindows(plan) {}

    Index scratch() const { return std::max(TILE, plan.pool ? 4 * (line + LANES) : 0); }  // the pixels of a window

    Index units() const { return plan.pool ? bands() : lines(); }

    bool divides_channels() const { return group == 1; }

    Index channels_at_a_time() const { return plan.channels; }

    WITH_ALL_IT_CALLS void statistics(const Stored* x, ChannelTable&, Part part, Moments* moments, Stored*,
                                      Scratch&) const {
        if (plan.pool) part = lines_of_bands(part);
        const Index channels = part.channels_end - part.channel, width = group * channels;
        std::vector<Real> of_columns(3 * width);
        Real *const guess = of_columns.data(), *const sum = guess + width, *const squares = sum + width;
        for (Index first = part.begin; first < part.end; first += LINES_IN_REAL) {
            const Part block{part.channel, part.channels_end, first, std::min(part.end, first + LINES_IN_REAL)};
            const Stored* top = x + first * line + part.channel;
            const Index count = std::min(block.end * line, numbers) / plan.channels - first * group;
            if (first == part.begin)
                guess_from(top, std::min<Index>(count, 16), channels, plan.channels, guess);
            else
                for (Index c = 0; c < channels; c++) guess[c] = Real(moments[part.channel + c].mean);
            for (Index i = channels; i < width; i++) guess[i] = guess[i - channels];
            std::fill(sum, sum + 2 * width, Real(0));
            const auto body = [&](auto lines, Index at, Index column, Index n) {
                const Index start = column - part.channel;
                for_numbers(n, [=](auto kind, Index i) {
                    using Number = decltype(kind);
                    const Number from = get<Number>(guess + start + i);
                    Number a{}, b{};
#pragma GCC unroll 4
                    for (int k = 0; k < decltype(lines)::COUNT; k++) {
                        const Number off = get<Number>(x + at + k * lines.apart + i) - from;
                        a += off, b += off * off;
                    }
                    put(get<Number>(sum + start + i) + a, sum + start + i);
                    put(get<Number>(squares + start + i) + b, squares + start + i);
                });
            };
            for_lines(block, body, !in_order(fill_caches(plan, 1)));
            for (Index c = 0; c < channels; c++) {
                double of_sum = 0, of_squares = 0;
                for (Index i = c; i < width; i += channels) of_sum += sum[i], of_squares += squares[i];
                Moments channel{double(count), 0, 0};
                if (!from_guess(guess[c], of_sum, of_squares, channel))
                    channel = moments_one_by_one({top + c, count, 1, plan.channels});
                moments[part.channel + c].merge(channel);
            }
        }
    }

    WITH_ALL_IT_CALLS void apply(const Stored* x, const Stored* residual, ChannelTable& table, Part part, Stored* y,
                                 Scratch& scratch) const {
        const auto activation = Activation(plan.activation);
        if (plan.pool) {
            const ManyChannels each = table.from(part.channel);
            const Index channels = part.channels_end - part.channel;
            for_windows(part, [&](Index in, Index out, Index windows) {
                if (!windows) return;
                const Real* input = choose(x + in, windows, channels, each, scratch);
                activate(input, nullptr, ONE_LINE, windows * channels, each, activation, y + out);
            });
            return;
        }
        with_stores(exceeds_caches(plan, residual ? 3 : 2, line, y + part.channel), [&](auto store) {
            const auto body = [&](auto lines, Index at, Index column, Index count) {
                const Stored* added = residual ? residual + at : nullptr;
                activate(x + at, added, lines, count, table.from(column), activation, y + at, store);
            };
            // The residual is read from as many places again. In evaluation nobody has just read x.
            const bool ordered = in_order(!plan.training || fill_caches(plan, 1));
            for_lines(part, body, spread() && !residual && !ordered);
        });
    }

    WITH_ALL_IT_CALLS void backward_sums(const Stored* x, const Stored* dy, ChannelTable& table, Part part, Sums* sums,
                                         Real* notes, Scratch& scratch) const {
        const auto activation = Activation(plan.activation);
        const Index channels = part.channels_end - part.channel;
        ColumnSums of_columns(sums + part.channel, channels, group);
        if (plan.pool) {
            const ManyChannels each = table.from(part.channel);
            for_windows(part, [&](Index in, Index out, Index windows) {
                if (!windows) return;
                const Index count = windows * channels;
                const Real* input = choose(x + in, windows, channels, each, scratch);
                if (notes) std::copy_n(scratch.at(WHICH), count, notes + in + windows * plan.channels);
                Real* dz = notes ? notes + in : scratch.at(WITHIN);
                with_slope(activation, [&](auto times_slope, auto pace) {
                    for_numbers(pace, count, noting(input, dy + out, each, times_slope, dz));
                });
                const auto add = [&](const auto* dz) {
                    of_columns.add(input, ONE_LINE, 0, count, each, Quick(),
                                   [=](auto, auto number, Index, Index i) { return get<decltype(number)>(dz + i); });
                };
                activation == NONE ? add(dy + out) : add(dz);
            });
        } else {
            const auto body = [&](auto lines, Index at, Index column, Index count) {
                const Index notes_apart = notes ? line : COLUMNS;
                Real* note = notes ? notes + at : scratch.at(WITHIN);
                const auto add = [&](auto pace, auto dz) {
                    of_columns.add(x + at, lines, column - part.channel, count, table.from(column), pace, dz);
                };
                if (activation == NONE)
                    add(Quick(), [=](auto, auto number, Index k, Index i) {
                        return get<decltype(number)>(dy + at + k * lines.apart + i);
                    });
                with_slope(activation, [&](auto times_slope, auto pace) {
                    add(pace, [=](auto channel, auto number, Index k, Index i) {
                        const auto gradient = get<decltype(number)>(dy + at + k * lines.apart + i);
                        const auto dz = times_slope(gradient, channel.normalized(number));
                        put(dz, note + k * notes_apart + i);
                        return dz;
                    });
                });
            };
            for_lines(part, body, !in_order(fill_caches(plan, 2)));
        }
        of_columns.settle();
    }

    // The same with a residual. dz goes into the sums unrounded, and at once: there are four tensors to stream through.
    WITH_ALL_IT_CALLS void residual_sums(const Stored* x, const Stored* dy, WithResidual with, ChannelTable& table,
                                         Part part, Sums* sums, Scratch&) const {
        ColumnSums of_columns(sums + part.channel, part.channels_end - part.channel, group);
        with_slope_from_output(Activation(plan.activation), [&](auto times_slope) {
            for_lines(part, [&](auto lines, Index at, Index column, Index count) {
                of_columns.add(x + at, lines, column - part.channel, count, table.from(column), Quick(),
                               [=](auto, auto number, Index k, Index i) {
                                   using Number = decltype(number);
                                   const Index place = at + k * lines.apart + i;
                                   const Number dz = times_slope(get<Number>(dy + place), get<Number>(with.y + place));
                                   put(dz, with.dz + place);
                                   return dz;
                               });
            });
        });
        of_columns.settle();
    }

    WITH_ALL_IT_CALLS void backward_apply(const Stored* x, const Stored* dy, ChannelTable& table, Part part, Stored* dx,
                                          const Real* notes, Scratch& scratch) const {
        if (plan.pool) {
            const ManyChannels each = table.from(part.channel);
            const Index channels = part.channels_end - part.channel;
            for_windows(part, [&](Index in, Index out, Index windows) {
                const Index count = windows * channels;
                // The notes have to be read before dx takes their place.
                const Real* dz = notes + in;
                if (plan.activation == NONE) dz = widened(dy + out, count, scratch.at(GRADIENT));
                std::copy_n(dz, count, scratch.at(WITHIN));
                std::copy_n(notes + in + windows * plan.channels, count, scratch.at(WHICH));
                route_windows(x, in, windows, channels, each, dx, scratch);
            });
            return;
        }
        const auto from = [&](auto* dz, auto store) {
            const auto body = [&](auto lines, Index at, Index column, Index count) {
                input_gradient(x + at, dz + at, lines, count, table.from(column), dx + at, store);
            };
            for_lines(part, body, !in_order(fill_caches(plan, 2)));
        };
        if (plan.activation != NONE) return from(notes, Kept());  // which are where dx will be
        with_stores(exceeds_caches(plan, 3, line, dx + part.channel), [&](auto store) { from(dy, store); });
    }

private:
    static constexpr Index LINES_IN_REAL = 512;  // that statistics adds up before it goes on in double

    // Bands are pairs of image rows, and don't have to end where lines do; but each line is of one thread.
    Part lines_of_bands(Part part) const {
        return {part.channel, part.channels_end, lines() * part.begin / bands(), lines() * part.end / bands()};
    }

    static void guess_from(const Stored* top, Index pixels, Index channels, Index apart, Real* guess) {
        std::fill(guess, guess + channels, Real(0));
        for (Index r = 0; r < pixels; r++) {
            INDEPENDENT_ITERATIONS
            for (Index i = 0; i < channels; i++) guess[i] += get<Real>(top + r * apart + i);
        }
        INDEPENDENT_ITERATIONS
        for (Index i = 0; i < channels; i++) guess[i] /= Real(pixels);
    }
};

}  // namespace
