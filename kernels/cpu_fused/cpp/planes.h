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
        : PlaneWindows(plan),
          band(std::max<Index>(1, TILE / std::max<Index>(1, 2 * plan.width))),
          tiles(plan.pool ? parts(pooled_height, band) : parts(pixels, TILE)) {}

    Index scratch() const { return std::max(TILE, 2 * plan.width); }

    Index units() const { return plan.images * tiles; }

    bool divides_channels() const { return true; }

    Index channels_at_a_time() const { return 1; }

    Index copies() const { return 1; }

    // With a pool also the pixels that count, into the memory where y will be, so that x is read only once.
    WITH_ALL_IT_CALLS void statistics(const Stored* x, ChannelTable& table, Part part, Moments* moments, Stored* y,
                                      Scratch& scratch) const {
        const Index planes = std::max<Index>(1, TILE / pixels);  // of small planes several are taken as one
        for_each_span(part, planes, [&](Part span) {
            const Index n = span.begin / tiles, first = span.begin % tiles, units = span.end - span.begin;
            const Index runs = tiles == 1 ? units : 1, end = tiles == 1 ? 1 : first + units;
            for (Index c = span.channel; c < span.channels_end; c++)
                for (Index tile = first; tile < end; tile++) {
                    const Stored* plane = x + (n * plan.channels + c) * pixels;
                    const Index past = tile + 1 == tiles ? pixels : piece_of(tile + 1).in;
                    for (Index start = piece_of(tile).in; start < past; start += TILE) {
                        const Index count = std::min(TILE, past - start);
                        moments[c].merge(moments_of({plane + start, runs, count, plan.channels * pixels}, moments[c]));
                    }
                }
            if (plan.pool) choose_all(x, table, span, y, scratch);
        });
    }

    WITH_ALL_IT_CALLS void apply(const Stored* x, const Stored* residual, ChannelTable& table, Part part, Stored* y,
                                 Scratch& scratch) const {
        const auto activation = Activation(plan.activation);
        if (plan.pool && !plan.training) choose_all(x, table, part, y, scratch);
        const Stored* from = plan.pool ? y : x;
        with_stores(!plan.pool && exceeds_caches(plan, residual ? 3 : 2, pixels, y), [&](auto store) {
            for_each_tile(part, [&](Index c, Index, Index, Index out, Index count) {
                const Stored* added = residual ? residual + out : nullptr;
                activate(from + out, added, ONE_LINE, count, table.one(c), activation, y + out, store);
            });
        });
    }

    WITH_ALL_IT_CALLS void backward_sums(const Stored* x, const Stored* dy, ChannelTable& table, Part part, Sums* sums,
                                         Real* notes, Scratch& scratch) const {
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

    WITH_ALL_IT_CALLS void backward_apply(const Stored* x, const Stored* dy, ChannelTable& table, Part part, Stored* dx,
                                          const Real* notes, Scratch& scratch) const {
        if (!plan.pool && plan.activation == NONE)
            return with_stores(exceeds_caches(plan, 3, pixels, dx), [&](auto store) {
                for_each_tile(part, [&](Index c, Index in, Index count, Index, Index) {
                    input_gradient(x + in, dy + in, ONE_LINE, count, table.one(c), dx + in, store);
                });
            });
        for_each_tile(part, [&](Index c, Index in, Index in_count, Index out, Index out_count) {
            const OneChannel channel = table.one(c);
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
    // A tile of a plane: about TILE pixels, with a pool `band` pairs of whole image rows.
    struct Piece {
        Index in, in_count, out, out_count;
    };

    static Index parts(Index all, Index each) { return (all + each - 1) / each; }

    Piece piece_of(Index tile) const {
        if (!plan.pool) {
            const Index start = tile * TILE, count = std::min(TILE, pixels - start);
            return {start, count, start, count};
        }
        const Index first = tile * band, pairs = std::min(band, pooled_height - first);
        return {2 * first * plan.width, 2 * pairs * plan.width, first * pooled_width, pairs * pooled_width};
    }

    // Calls body(channel, input's start and size, output's start and size) for each tile, plane after plane where a
    // part has whole ones. An odd last image row is a tile without output.
    template <class Body>
    void for_each_tile(Part part, Body body) const {
        for_each_span(part, 1, [&](Part span) {
            const Index n = span.begin / tiles, first = span.begin % tiles, end = first + span.end - span.begin;
            for (Index c = part.channel; c < part.channels_end; c++) {
                const Index plane = n * plan.channels + c;
                for (Index tile = first; tile < end; tile++) {
                    const Piece piece = piece_of(tile);
                    body(c, plane * pixels + piece.in, piece.in_count, plane * output_pixels + piece.out,
                         piece.out_count);
                    if (plan.pool && plan.height % 2 && tile + 1 == tiles)
                        body(c, (plane + 1) * pixels - plan.width, plan.width, (plane + 1) * output_pixels, 0);
                }
            }
        });
    }

    // Calls body(part) for the tiles that a part has of each image, or for so many images where a plane is one tile.
    template <class Body>
    void for_each_span(Part part, Index images, Body body) const {
        for (Index unit = part.begin; unit < part.end;) {
            const Index most = tiles == 1 ? images : tiles - unit % tiles;
            const Index end = std::min(part.end, unit + most);
            body(Part{part.channel, part.channels_end, unit, end});
            unit = end;
        }
    }

    void choose_all(const Stored* x, ChannelTable& table, Part part, Stored* y, Scratch& scratch) const {
        for_each_tile(part, [&](Index c, Index in, Index in_count, Index out, Index out_count) {
            Real* chosen = target(y + out, scratch.at(CHOSEN));
            choose(widened(x + in, in_count, scratch.at(INPUT)), out_count, table.one(c).sign, chosen);
            narrow(chosen, out_count, y + out);
        });
    }

    const Index band, tiles;  // pairs of image rows in a tile, tiles of a plane
};

}  // namespace
