// The lines that loops over rows go through. A line is the channels of one pixel, or of the `group` pixels next to each
// other that fill some vectors, where channels are few. C = 3 channels a, b and c in lines of four pixels:
//
//     a0 b0 c0 a1 b1 c1 a2 b2 c2 a3 b3 c3     the first line
//     a4 b4 c4 a5 b5 c5 ...                   the second
//
// The tables of channels and of sums are as long as a line. Four lines are taken at a time where there are as many, or
// one after the other (`in_order`), and of long lines COLUMNS numbers at a time. The last line may be shorter than the
// others.

#pragma once

#include "streaming.h"

#include <algorithm>

namespace {

// How many numbers of a line are taken at a time: what is needed of so many channels stays in the first-level cache.
constexpr Index COLUMNS = TILE / 4;

class RowLines : protected Sizes {
public:
    explicit RowLines(const Plan& plan)
        : Sizes(plan),
          group(group_of(plan.channels)),
          line(group * plan.channels),
          numbers(plan.images * pixels * plan.channels) {}

    Index copies() const { return group; }

    // Whether numbers of the same column are in different sets of the cache. Where they aren't, four lines that are
    // read and four that are written drive each other out.
    bool spread() const { return line * sizeof(Stored) % PAGE; }

protected:
    // Whether lines are read faster one after the other: out of memory, as the processor fetches ahead in long ones,
    // but not if they are so long that what is needed of their channels leaves the first-level cache in between.
    bool in_order(bool out_of_memory) const {
        return out_of_memory && line * sizeof(Stored) >= 8 * CACHE_LINE && line <= 2 * COLUMNS;
    }

    Index lines() const { return (numbers + line - 1) / line; }

    // Calls body(lines, start in memory, its column, how many numbers of each line), four lines at a time if
    // `together`.
    template <class Body>
    void for_lines(Part part, Body body, bool together = true) const {
        const Index whole = std::min(part.end, numbers / line);
        const Index width = group == 1 ? part.channels_end - part.channel : line;
        const auto of = [&](auto lines, Index number, Index width) {
            for (Index i = 0; i < width; i += COLUMNS)
                body(lines, number * line + part.channel + i, part.channel + i, std::min(COLUMNS, width - i));
        };
        Index k = part.begin;
        for (; together && k + 4 <= whole; k += 4) of(Lines<4>{line}, k, width);
        for (; k < whole; k++) of(Lines<1>{line}, k, width);
        if (k < part.end) of(Lines<1>{line}, k, numbers - k * line);
    }

    const Index group, line, numbers;

private:
    static constexpr Index PAGE = 4096;  // of memory: a cache's sets begin again with it

    // Until a line is four vectors long and, if that doesn't take too many, ends where a vector ends.
    static Index group_of(Index channels) {
        Index group = 1;
        while (group * channels < 4 * LANES || (group * channels % LANES && group * channels < 8 * LANES)) group *= 2;
        return group;
    }
};

}  // namespace
