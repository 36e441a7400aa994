// How a tensor (N, C, H, W) lies in memory, in one of two ways; N = 1, C = 2 channels a and b, 2 x 3 pixels:
//
//     planes, (N, C, H, W)     a0 a1 a2 a3 a4 a5 | b0 b1 b2 b3 b4 b5
//                              one plane:          the next plane: the pixels of one channel of one image,
//                              a0 a1 a2            image row after image row
//                              a3 a4 a5
//
//     rows, (N, H, W, C)       a0 b0 | a1 b1 | a2 b2 | a3 b3 | a4 b4 | a5 b5
//                              one row: the channels of one pixel. This is torch's channels-last;
//                              a matrix (N, C) is rows of one pixel per image; `lines.h` says what a loop takes of them
//
// A vector takes consecutive numbers: in planes pixels of one channel, in rows channels of one pixel. `planes.h` cuts a
// plane into tiles of TILE pixels, and what is left at its end, the tail, is a shorter tile; `vectors.h` shows how a
// tile whose length is no multiple of LANES ends. With a pool a tile is whole pairs of image rows, and an odd last
// image row, or column, belongs to no window: it has no output, but a dx.

#pragma once

#include "numbers.h"

#include <memory>

namespace {

// What does not change from call to call: `Plan` of kernel_calls.py, field by field.
struct Plan {
    Index images, channels, height, width, in_rows, pool, activation, training, threads;
};

// What a thread works on at a time: some channels of some units of the layout. Units of planes are tiles, each of all
// channels; units of rows are lines or, with a pool, pairs of image rows.
struct Part {
    Index channel, channels_end, begin, end;
};

// What planes and rows both derive from a plan.
struct Sizes {
    explicit Sizes(const Plan& plan)
        : plan(plan),
          pixels(plan.height * plan.width),
          pooled_height(plan.height / 2),
          pooled_width(plan.width / 2),
          output_pixels(plan.pool ? pooled_height * pooled_width : pixels) {}

    const Plan& plan;
    Index pixels, pooled_height, pooled_width, output_pixels;
};

// What a tile of scratch memory is for: x, dy and y as Real; of each window the x that counts and its number; dz.
enum Stage { INPUT, GRADIENT, OUTPUT, CHOSEN, WITHIN, WHICH, STAGES };

// Memory of one thread: a tile of numbers for each stage. A thread keeps it, since to a small matrix even malloc
// matters.
class Scratch {
public:
    explicit Scratch(Index tile) : tile(tile) {
        static thread_local std::unique_ptr<Real[]> kept;
        static thread_local Index size = 0;
        if (size < STAGES * tile) {
            size = 0;
            kept.reset(new Real[STAGES * tile]);
            size = STAGES * tile;
        }
        numbers = kept.get();
    }

    Real* at(Stage stage) { return numbers + stage * tile; }

private:
    Index tile;
    Real* numbers;
};

}  // namespace
