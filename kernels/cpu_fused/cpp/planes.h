// The four steps on planes, (N, C, H, W): vectors of pixels of one channel.

#pragma once

#include "elementwise.h"
#include "gradient_sums.h"
#include "plane_windows.h"
#include "residual.h"
#include "statistics.h"

#include <algorithm>
#include <array>
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
        const Index together = std::max<Index>(1, TILE / pixels);
        for_each_span(part, together, [&](Part span) {
            if (tiles == 1 && span.end - span.begin > 2)
                for (Index c = span.channel; c < span.channels_end; c += CHANNELS)
                    of_small_planes(x, {c, std::min(span.channels_end, c + CHANNELS), span.begin, span.end}, moments);
            else
                of_large_planes(x, span, moments);
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
        const auto in_memory = [](const auto* dz) {
            return [=](auto kind, Index i) { return get<decltype(kind)>(dz + i); };
        };
        if (activation == NONE)
            for_each_input(x, table, part, scratch, [&](Index c, const auto* input, Index, Index out, Index count) {
                running[c - part.channel].add(input, count, table.one(c).all.mean, in_memory(dy + out));
            });
        with_slope(activation, [&](auto times_slope, auto pace) {
            for_each_input(x, table, part, scratch, [&](Index c, const auto* input, Index in, Index out, Index count) {
                const OneChannel channel = table.one(c);
                Real* const note = notes ? notes + in : scratch.at(WITHIN);
                const auto noted = noting(input, dy + out, channel, times_slope, note);
                RunningSums& own = running[c - part.channel];
                if constexpr (std::is_same_v<decltype(pace), Quick>)
                    return own.add(input, count, channel.all.mean, noted);
                for_numbers(pace, count, noted);
                own.add(input, count, channel.all.mean, in_memory(note));
            });
        });
        for (Index c = part.channel; c < part.channels_end; c++) sums[c].merge(running[c - part.channel].result());
    }

    // The same with a residual; the unrounded dz goes into the sums.
    void residual_sums(const Stored* x, const Stored* dy, WithResidual with, ChannelTable& table, Part part, Sums* sums,
                       Scratch&) const {
        std::vector<RunningSums> running(part.channels_end - part.channel);
        with_slope_from_output(Activation(plan.activation), [&](auto times_slope) {
            for_each_tile(part, [&](Index c, Index in, Index count, Index, Index) {
                running[c - part.channel].add(x + in, count, table.one(c).all.mean, [=](auto kind, Index i) {
                    using Number = decltype(kind);
                    const Number dz = times_slope(get<Number>(dy + in + i), get<Number>(with.y + in + i));
                    put(dz, with.dz + in + i);
                    return dz;
                });
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
    static constexpr Index CHANNELS = 64;  // whose sums stay in the first-level cache

    Runs planes_of(const Stored* x, Index c, Part part) const {
        return {x + (part.begin * plan.channels + c) * pixels, part.end - part.begin, pixels, plan.channels * pixels};
    }

    // In the order of memory, image after image.
    void of_small_planes(const Stored* x, Part part, Moments* moments) const {
        std::array<CenteredSums, CHANNELS> sums;
        for (Index c = part.channel; c < part.channels_end; c++)
            sums[c - part.channel] = CenteredSums(guess_of(planes_of(x, c, part).x, pixels, moments[c]));
        for (Index n = part.begin; n < part.end; n++)
            for (Index c = part.channel; c < part.channels_end; c++)
                sums[c - part.channel].add(x + (n * plan.channels + c) * pixels, pixels);
        for (Index c = part.channel; c < part.channels_end; c++)
            moments[c].merge(moments_of(planes_of(x, c, part), sums[c - part.channel]));
    }

    // Channel after channel: two planes of one tile each, read at the same time, or some tiles of one plane.
    void of_large_planes(const Stored* x, Part part, Moments* moments) const {
        const Index n = part.begin / tiles, first = part.begin % tiles, last = first + part.end - part.begin;
        for (Index c = part.channel; c < part.channels_end; c++) {
            if (tiles == 1) {
                moments[c].merge(moments_of(planes_of(x, c, part), moments[c]));
                continue;
            }
            const Stored* plane = x + (n * plan.channels + c) * pixels;
            const Index end = last == tiles ? pixels : piece_of(last).in;
            for (Index start = piece_of(first).in; start < end; start += TILE)
                moments[c].merge(moments_of({plane + start, 1, std::min(TILE, end - start), 0}, moments[c]));
        }
    }

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

    // Calls body(part) for the planes of several channels whose pixels that count have room in a tile.
    template <class Body>
    void for_each_group(Part part, Body body) const {
        const Index most = tiles == 1 ? std::max<Index>(1, TILE / std::max<Index>(1, output_pixels)) : 1;
        for_each_span(part, 1, [&](Part span) {
            for (Index c = part.channel; c < part.channels_end; c += most)
                for (Index unit = span.begin; unit < span.end; unit++)
                    body(Part{c, std::min(part.channels_end, c + most), unit, unit + 1});
        });
    }

    // Calls body(channel, x, input's start, output's start and size) for each tile. With a pool x is of the pixels that
    // count. Those of a group are all chosen before: a wide load of what has just been stored in parts has to wait.
    template <class Body>
    void for_each_input(const Stored* x, ChannelTable& table, Part part, Scratch& scratch, Body body) const {
        if (!plan.pool)
            return for_each_tile(
                part, [&](Index c, Index in, Index, Index out, Index count) { body(c, x + in, in, out, count); });
        for_each_group(part, [&](Part group) {
            const Index first = group.begin / tiles * plan.channels + group.channel;
            const Index start = first * output_pixels + piece_of(group.begin % tiles).out;
            Real* const chosen = scratch.at(CHOSEN);
            for_each_tile(group, [&](Index c, Index in, Index in_count, Index out, Index out_count) {
                const Real* input = widened(x + in, in_count, scratch.at(INPUT));
                choose(input, out_count, table.one(c).sign, chosen + (out - start));
            });
            for_each_tile(group, [&](Index c, Index in, Index, Index out, Index count) {
                body(c, chosen + (out - start), in, out, count);
            });
        });
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
