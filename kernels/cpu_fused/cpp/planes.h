// The four steps on planes, (N, C, H, W): vectors of pixels of one channel.

#pragma once

#include "elementwise.h"
#include "gradient_sums.h"
#include "plane_windows.h"
#include "residual.h"
#include "statistics.h"

#include <algorithm>
#include <vector>

namespace {

class Planes : PlaneWindows {
public:
    explicit Planes(const Plan& plan)
        : PlaneWindows(plan), band(std::max<Index>(1, TILE / std::max<Index>(1, 2 * plan.width))) {}

    Index scratch() const { return std::max(TILE, 2 * plan.width); }

    Index units() const { return plan.images; }

    bool by_channels() const { return plan.images < 4 * plan.threads; }

    Index channels_at_a_time() const { return 1; }

    Index copies() const { return 1; }

    // With a pool also the pixels that count, into the memory where y will be, so that x is read only once.
    void statistics(const Stored* x, ChannelTable& table, Part part, Moments* moments, Stored* y,
                    Scratch& scratch) const {
        const Index length = std::min(pixels, TILE), images = TILE / length;
        for (Index n = part.begin; n < part.end; n += images) {
            const Index runs = std::min(images, part.end - n);
            for (Index c = part.channel; c < part.channels_end; c++)
                for (Index start = 0; start < pixels; start += TILE) {
                    const Index count = std::min(length, pixels - start);
                    const Stored* tile = x + (n * plan.channels + c) * pixels + start;
                    moments[c].merge(moments_of({tile, runs, count, plan.channels * pixels}, moments[c]));
                }
            if (plan.pool) choose_all(x, table, {part.channel, part.channels_end, n, n + runs}, y, scratch);
        }
    }

    void apply(const Stored* x, const Stored* residual, ChannelTable& table, Part part, Stored* y,
               Scratch& scratch) const {
        const auto activation = Activation(plan.activation);
        if (plan.pool && !plan.training) choose_all(x, table, part, y, scratch);
        const Stored* from = plan.pool ? y : x;
        for (Index n = part.begin; n < part.end; n++)
            for (Index c = part.channel; c < part.channels_end; c++) {
                const Index plane = (n * plan.channels + c) * output_pixels;
                for (Index start = plane; start < plane + output_pixels; start += TILE) {
                    const Index count = std::min(TILE, plane + output_pixels - start);
                    const Stored* added = residual ? residual + start : nullptr;
                    activate(from + start, added, ONE_LINE, count, table.one(c), activation, y + start);
                }
            }
    }

    void backward_sums(const Stored* x, const Stored* dy, ChannelTable& table, Part part, Sums* sums, Real* notes,
                       Scratch& scratch) const {
        const auto activation = Activation(plan.activation);
        std::vector<RunningSums> running(part.channels_end - part.channel);
        for_each_tile(part, [&](Index c, Index in, Index in_count, Index out, Index out_count) {
            const OneChannel channel = table.one(c);
            Real* dz = notes ? notes + in : scratch.at(WITHIN);
            const auto add = [&](const auto* input) {
                if (activation == NONE)
                    return running[c - part.channel].add(input, dy + out, out_count, channel.all.mean);
                before_activation(input, dy + out, out_count, channel, activation, dz);
                running[c - part.channel].add(input, dz, out_count, channel.all.mean);
            };
            if (!plan.pool) return add(x + in);
            const Real* input = widened(x + in, in_count, scratch.at(INPUT));
            add(choose(input, out_count, channel.sign, scratch.at(CHOSEN)));
        });
        for (Index c = part.channel; c < part.channels_end; c++) sums[c].merge(running[c - part.channel].result());
    }

    // The same with a residual; the unrounded dz goes into the sums.
    void residual_sums(const Stored* x, const Stored* dy, WithResidual with, ChannelTable& table, Part part, Sums* sums,
                       Scratch& scratch) const {
        std::vector<RunningSums> running(part.channels_end - part.channel);
        with_slope_from_output(Activation(plan.activation), [&](auto times_slope) {
            for_each_tile(part, [&](Index c, Index in, Index count, Index, Index) {
                Real* dz = target(with.dz + in, scratch.at(WITHIN));
                for_numbers(count, [&](auto kind, Index i) {
                    using Number = decltype(kind);
                    put(times_slope(get<Number>(dy + in + i), get<Number>(with.y + in + i)), dz + i);
                });
                narrow(dz, count, with.dz + in);
                running[c - part.channel].add(x + in, dz, count, table.one(c).all.mean);
            });
        });
        for (Index c = part.channel; c < part.channels_end; c++) sums[c].merge(running[c - part.channel].result());
    }

    void backward_apply(const Stored* x, const Stored* dy, ChannelTable& table, Part part, Stored* dx,
                        const Real* notes, Scratch& scratch) const {
        for_each_tile(part, [&](Index c, Index in, Index in_count, Index out, Index out_count) {
            const OneChannel channel = table.one(c);
            if (!plan.pool && plan.activation == NONE)
                return input_gradient(x + in, dy + out, ONE_LINE, in_count, channel, dx + in);
            if (!plan.pool) return input_gradient(x + in, notes + in, ONE_LINE, in_count, channel, dx + in);
            const Real* pixel = widened(x + in, in_count, scratch.at(INPUT));
            Real* output = target(dx + in, scratch.at(OUTPUT));
            if (out_count == 0) {  // an odd last row
                for (Index i = 0; i < in_count; i++) output[i] = channel.all.through_statistics(pixel[i]);
            } else {  // the notes have to be read before dx takes their place
                Real* gradient = scratch.at(WITHIN);
                const auto scaled = [&](const auto* dz) {
                    for_numbers(out_count, [&](auto kind, Index i) {
                        put(channel.all.scale * get<decltype(kind)>(dz + i), gradient + i);
                    });
                };
                plan.activation == NONE ? scaled(dy + out) : scaled(notes + in);
                route_windows(pixel, gradient, out_count, channel, output);
            }
            narrow(output, in_count, dx + in);
        });
    }

private:
    // Calls body(channel, input's start and size, output's start and size) for pieces of about a TILE: with a pool,
    // `band` pairs of whole image rows. An odd last row is a piece without output.
    template <class Body>
    void for_each_tile(Part part, Body body) const {
        for (Index n = part.begin; n < part.end; n++)
            for (Index c = part.channel; c < part.channels_end; c++) {
                const Index plane = n * plan.channels + c;
                const Index in = plane * pixels, out = plane * output_pixels;
                if (!plan.pool) {
                    for (Index start = 0; start < pixels; start += TILE) {
                        const Index count = std::min(TILE, pixels - start);
                        body(c, in + start, count, out + start, count);
                    }
                    continue;
                }
                for (Index i = 0; i < pooled_height; i += band) {
                    const Index pairs = std::min(band, pooled_height - i);
                    body(c, in + 2 * i * plan.width, 2 * pairs * plan.width, out + i * pooled_width,
                         pairs * pooled_width);
                }
                if (plan.height % 2) body(c, in + 2 * pooled_height * plan.width, plan.width, out, 0);
            }
    }

    void choose_all(const Stored* x, ChannelTable& table, Part part, Stored* y, Scratch& scratch) const {
        for_each_tile(part, [&](Index c, Index in, Index in_count, Index out, Index out_count) {
            Real* chosen = target(y + out, scratch.at(CHOSEN));
            choose(widened(x + in, in_count, scratch.at(INPUT)), out_count, table.one(c).sign, chosen);
            narrow(chosen, out_count, y + out);
        });
    }

    Index band;
};

}  // namespace
