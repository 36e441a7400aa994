// Pooling in rows: vectors of channels, of a window or of `group` windows next to each other. Work is divided by bands,
// pairs of image rows.

#pragma once

#include "elementwise.h"
#include "gradient_sums.h"
#include "lines.h"
#include "pool.h"

#include <algorithm>

namespace {

class RowWindows : public RowLines {
protected:
    using RowLines::RowLines;

    Index bands() const { return plan.images * bands_of_image(); }

    // Calls body(input's start, output's start, windows) for some windows at a time. Where height or width is odd the
    // last windows of a band are not whole: they have no output, and are said to be 0 windows.
    template <class Body>
    void for_windows(Part part, Body body) const {
        const Index most = plan.channels < 2 * LANES ? group : 1;  // to gather pixels takes time, too
        for (Index band = part.begin; band < part.end; band++) {
            const Index n = band / bands_of_image(), i = band % bands_of_image();
            const bool odd = i == pooled_height;
            const Index in = n * pixels + 2 * i * plan.width, out = n * output_pixels + i * pooled_width;
            for (Index j = 0; 2 * j < plan.width;) {
                const Index windows = odd || j == pooled_width ? 0 : std::min(most, pooled_width - j);
                body((in + 2 * j) * plan.channels + part.channel, (out + j) * plan.channels + part.channel, windows);
                j += std::max<Index>(1, windows);
            }
        }
    }

    // Of each window from x on, for each channel, the x that counts; its number goes to WHICH.
    const Real* choose(const Stored* x, Index windows, Index channels, ManyChannels each, Scratch& scratch) const {
        const Index count = windows * channels;
        const Real* pixels[4];
        for (int k = 0; k < 4; k++)
            pixels[k] = gathered(x + place(k), windows, channels, scratch.at(INPUT) + k * (count + LANES));
        Real *const chosen = scratch.at(CHOSEN), *const which = scratch.at(WHICH);
        // As wide as what reads it next, which would have to wait for parts.
        for_numbers(Slow(), count, [=](auto kind, Index i) {
            using Number = decltype(kind);
            Winner<Number> winner{get<Number>(pixels[0] + i)};
#pragma GCC unroll 3
            for (int k = 1; k < 4; k++) winner.challenge(get<Number>(pixels[k] + i), Real(k), each.sign<Number>(i));
            put(winner.x, chosen + i), put(winner.number, which + i);
        });
        return chosen;
    }

    // dx at those pixels of the windows at `in` that are in the image, from dz in WITHIN and the numbers in WHICH.
    void route_windows(const Stored* x, Index in, Index windows, Index channels, ManyChannels each, Stored* dx,
                       Scratch& scratch) const {
        const Index pixel = in / plan.channels % pixels, i = pixel / plan.width, j = pixel % plan.width;
        const Index wide = std::max<Index>(1, windows), count = wide * channels;
        const Real* inputs[4];
        Real* outputs[4] = {};
        for (int k = 0; k < 4; k++) {
            if (i + k / 2 >= plan.height || j + k % 2 >= plan.width) continue;
            const Index apart = k * (count + LANES);
            inputs[k] = gathered(x + in + place(k), wide, channels, scratch.at(INPUT) + apart);
            outputs[k] = scratch.at(OUTPUT) + apart;
            if (wide == 1) outputs[k] = target(dx + in + place(k), outputs[k]);
        }
        const Real *const dz = scratch.at(WITHIN), *const which = scratch.at(WHICH);
        for_numbers(count, [&](auto kind, Index i) {
            using Number = decltype(kind);
            const Channel<Number> channel = each.at<Number>(i);
            const Number routed = windows ? channel.scale * get<Number>(dz + i) : Number{};
            const Number number = get<Number>(which + i);
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++) {
                if (!outputs[k]) continue;
                const Number here = number == Number{} + Real(k) ? routed : Number{};
                put(channel.through_statistics(get<Number>(inputs[k] + i)) + here, outputs[k] + i);
            }
        });
        for (int k = 0; k < 4; k++)
            if (outputs[k]) scattered(outputs[k], wide, channels, dx + in + place(k));
    }

private:
    Index bands_of_image() const { return (plan.height + 1) / 2; }

    // Where the pixel of this number is in its window.
    Index place(int number) const { return (number / 2 * plan.width + number % 2) * plan.channels; }

    // One pixel of each window from x on, next to each other and as Real.
    template <class Other>
    static const Real* gathered(const Other* x, Index windows, Index channels, Real* scratch) {
        if (windows == 1) return widened(x, channels, scratch);
        Index w = 0;
        if constexpr (std::is_same_v<Other, Real>) {
            // A vector for each pixel: what it has too much is overwritten by the next, and is in the image as long as
            // there is a window after it.
            if (channels >= 3 && channels <= LANES)
                for (; w + 1 < windows; w++) store(load(x, 2 * w * channels), scratch, w * channels);
        }
        for (; w < windows; w++)
            for (Index c = 0; c < channels; c++) scratch[w * channels + c] = get<Real>(x + 2 * w * channels + c);
        return scratch;
    }

    // The way back.
    static void scattered(const Real* from, Index windows, Index channels, Stored* dx) {
        if (windows == 1) return narrow(from, channels, dx);
        for (Index w = 0; w < windows; w++)
            for (Index c = 0; c < channels; c++) put(from[w * channels + c], dx + 2 * w * channels + c);
    }
};

}  // namespace
